import { Logger } from '../../src/logging/logger';
import { describe as describeValue, describeError } from '../../src/logging/describe';
import { redact, redactWritten } from '../../src/logging/redact';
import { aboutNumber, conceal, requestContext } from '../../src/logging/request-context';
import { traceIdOf } from '../../src/logging/trace-id';
import { cpuSecondsOf, LINEAR_CPU_SECONDS } from '../support/cpu-time';

const NUMBER = '+919876543210';
const KEY = `sm_live_${'5e'.repeat(20)}`;
const JWT =
  'eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJhYmMifQ.MEUCIQDx_y-z0123456789abcdefghijklmnopqrstuvwxyzAB';
const REDIS = 'rediss+cluster://user:hunter2@cache-1:6379,cache-2:6379';
const MAC = `hunter2${'x'.repeat(36)}`;
const REFRESH = `${'s'.repeat(22)}.${'i'.repeat(22)}.7.kEy-id.${MAC}`;
const DEVICE = `${'d'.repeat(22)}.1795000000000.kEy-id.${MAC}`;
const ALL = `${NUMBER} ${KEY} ${JWT} ${REDIS}`;

/** None of the secrets stands in it, in no part that is worth having. */
function expectClean(text: string): void {
  expect(text).not.toMatch(/98765|43210|5e5e5e|hunter2|OiJFUzI1|eyJzdWIi|MEUCIQ/);
}

let lines: string[];
let logger: Logger;
beforeEach(() => {
  lines = [];
  logger = new Logger('trace', { write: (line) => lines.push(line) });
});
const onlyMessages = (): unknown[] => lines.map((line) => (JSON.parse(line) as { msg: unknown }).msg);
const onlyLine = (): Record<string, unknown> => {
  expect(lines).toHaveLength(1);
  return JSON.parse(lines[0]!) as Record<string, unknown>;
};

describe('redact', () => {
  test.each([
    ['an E.164 number', NUMBER],
    ['a percent-encoded number', '%2B919876543210'],
    ['a number without its plus', '919876543210'],
    ['a national number', '9876543210'],
    ['a national number behind a trunk prefix', 'tel=+9876543210;'],
    ['a number in a URL', '/x?phone=%2b919876543210&y=1'],
    ['a number in JSON', `{"phoneNumber":"${NUMBER}"}`],
    ['several numbers', `${NUMBER},${NUMBER}${NUMBER}`],
    ['a number that begins with 6', '+916987654321, 6987654321'],
    ['a live key', KEY],
    ['a test key', KEY.replace('live', 'test')],
    ['a key in a header', `X-API-Key: ${KEY}`],
    ['a JWT', JWT],
    ['a bearer token', `Authorization: Bearer ${JWT}`],
    ['an unsigned JWT', 'eyJhbGciOiJub25lOiJFUzI1In0.eyJzdWIiOiJhYmMifQ.'],
    ['the beginning of a JWT', JWT.slice(0, 60)],
    ['a Redis URL', 'redis://user:hunter2@cache:6379/0'],
    ['a Redis URL with a password alone', 'redis://:hunter2@cache:6379'],
    ['a Sentinel URL with TLS', 'rediss+sentinel://user:hunter2@s-1:26379,s-2:26379/main'],
    ['a Cluster URL', REDIS],
    ['all of them', ALL],
    ['a number that was encoded twice', '%252B919876543210'],
    ['a number whose digits are encoded', '%39%38%37%36%35%34%33%32%31%30'],
    ['a number whose digits are escaped', '\\u0039\\u00387654\\u0033210'],
    ['a number in JSON in JSON', JSON.stringify(JSON.stringify({ to: NUMBER }))],
    ['a number in groups', '+91 98765 43210, 98765-43210'],
    ['a national number behind a 0', 'tel=09876543210; 009876543210; 0000009876543210'],
    ['a number of another country', '+449876543210'],
    ['a test number', '+910987654321'],
    ['a refresh token', REFRESH],
    ['a refresh token with something behind it', `${REFRESH}x`],
    ['a device token', DEVICE],
    ['a private key', '-----BEGIN PRIVATE KEY-----\nMEUCIQhunter2\n-----END PRIVATE KEY-----'],
  ])('the redaction of a log line hides %s', (_, text) => {
    expectClean(redact(`before ${text} after`));
    expect(redact(`before ${text} after`)).toMatch(/^before .*after$/);
  });

  test('the redaction of a log line keeps the values that operators look for', () => {
    expect(redact(REDIS)).toBe('rediss+cluster://***@cache-1:6379,cache-2:6379');
    expect(redact(KEY)).toBe('sm_live_***');
    expect(redact('redis://cache:6379/0 refused')).toBe('redis://cache:6379/0 refused');
    const plain = 'POST /auth/send-otp 200 in 1234567890 ns at 2026-11-21T10:00:00.000Z, 60 of 600';
    expect(redact(plain)).toBe(plain);
  });

  test.each([
    'otp=123456',
    '"otpCode":"123456"',
    '\\"otpCode\\": 123456',
    'Your code is 123456.',
    'otp%22%3A%22123456%22',
    'pin: 123456',
  ])('the redaction of a log line hides the code in %s', (text) => {
    expect(redact(text)).not.toContain('1234');
  });

  test('the redaction of a log line keeps six digits that are no code', () => {
    expect(redact('123456 keys, 250000 paise, port 54321')).toBe('123456 keys, 250000 paise, port 54321');
  });

  test.each(['98765.43210', '(0) 98765-43210', '987 654 3210', '९८७६५४३२१०', '+९१ ９８７６５ ४३२१०'])(
    'the redaction hides the phone number %s in text that a person wrote',
    (text) => {
      expect(redactWritten(`lost ${text}, in 2026`)).toMatch(/^lost [^\p{Nd}]*, in 2026$/u);
    },
  );

  test('the redaction takes time in proportion to the length of a text', () => {
    const starts = [
      'eyJ',
      '91',
      '9',
      '0',
      'redis://',
      'sm_live_',
      'eyJ.',
      '%25',
      '%',
      '\\',
      '91 ',
      '+',
      'otp ',
      'a.abcdef.',
    ];
    const cpuSeconds = cpuSecondsOf(() => {
      for (const text of [...starts, '-----BEGIN ', 'is', 'redis+a', '-', ' ']) redact(text.repeat(50_000));
    });
    expect(cpuSeconds).toBeLessThan(LINEAR_CPU_SECONDS);
  });
});

/** As ioredis throws them: the command with all of its arguments is a property. */
function redisError(): Error {
  return Object.assign(new Error('WRONGTYPE Operation against a key'), {
    name: 'ReplyError',
    command: { name: 'evalsha', args: ['sha', '1', 'key', NUMBER, JWT] },
    previousErrors: [NUMBER],
  });
}

/** As axios throws them: the API key stands among the headers, twice, and toJSON hands it out. */
function axiosError(): Error {
  const config = { url: '/otp/send', headers: { 'X-API-Key': KEY }, data: `{"phoneNumber":"${NUMBER}"}` };
  return Object.assign(new Error('Request failed with status code 401'), {
    name: 'AxiosError',
    code: 'ERR_BAD_REQUEST',
    config,
    request: { _header: `X-API-Key: ${KEY}` },
    response: { status: 401, config, data: { phoneNumber: NUMBER } },
    toJSON: () => ({ message: 'x', config }),
  });
}

describe('describeError', () => {
  test('a described error has name, message, code, reason and stack', () => {
    const error = Object.assign(new TypeError('it broke'), { code: 'ECONNREFUSED', reason: 'unreachable' });
    const described = describeError(error);
    expect(described).toEqual({
      name: 'TypeError',
      message: 'it broke',
      code: 'ECONNREFUSED',
      reason: 'unreachable',
      stack: expect.stringContaining('logging.test') as string,
    });
  });

  test('a described error is redacted in message, stack and every cause', () => {
    const error = new Error(`one ${ALL}`, {
      cause: new Error(`two ${ALL}`, { cause: new Error(`three ${ALL}`, { cause: ALL }) }),
    });
    const text = JSON.stringify(describeError(error));
    expectClean(text);
    for (const message of ['one +91******', 'two +91******', 'three +91******'])
      expect(text).toContain(message);
    expect(text).toContain('sm_live_***');
  });

  test('a described error has no other property of the error', () => {
    expect(Object.keys(describeError(redisError()))).toEqual(['name', 'message', 'stack']);
    expect(Object.keys(describeError(axiosError()))).toEqual(['name', 'message', 'code', 'stack']);
    expectClean(JSON.stringify(describeError(new Error('x', { cause: axiosError() }))));
    expectClean(JSON.stringify(describeError(new AggregateError([redisError(), new Error(ALL)], 'several'))));
  });

  test('an error is redacted before it is cut, so that no half of a secret is left', () => {
    for (let at = 980; at < 1_001; at++) {
      expectClean(String(describeError(new Error(' '.repeat(at) + ALL)).message));
    }
    expect(String(describeError(new Error('x'.repeat(100_000))).message)).toHaveLength(1_000);
    expect(JSON.stringify(describeError(new Error('x'.repeat(100_000)))).length).toBeLessThan(6_000);
  });

  test('a thrown value that is no error is described', () => {
    expect(describeError(ALL)).toEqual({ message: redact(ALL) });
    expect(describeError(undefined)).toEqual({ message: 'undefined' });
    expect(describeError(null)).toEqual({ message: 'null' });
    expect(describeError(Symbol('x'))).toEqual({ message: 'Symbol(x)' });
    expectClean(JSON.stringify(describeError({ message: ALL, toString: () => ALL })));
  });

  test('an error whose causes go in a circle is described without endless output', () => {
    const [one, two] = [new Error('one'), new Error('two')];
    one.cause = two;
    two.cause = one;
    expect(JSON.stringify(describeError(one)).length).toBeLessThan(6_000);
  });
});

describe('describe', () => {
  test('a described value hides secrets in texts of any depth, in names, and in every kind of container', () => {
    const text = JSON.stringify(
      describeValue({
        list: [[ALL], new Set([NUMBER]), new Map<unknown, unknown>([[NUMBER, { [JWT]: KEY }]])],
        nested: { a: { b: { c: REDIS } } },
        bytes: [Buffer.from(ALL), new Uint8Array([1]), new ArrayBuffer(2)],
        url: new URL(`https://x.example/?to=%2B919876543210`),
        figures: [919876543210, 9876543210n, 42],
        errors: [redisError(), axiosError(), { inner: new Error(ALL) }],
        symbol: Symbol(NUMBER),
      }),
    );
    expectClean(text);
    expect(text).toContain('[58 bytes]'.replace('58', String(Buffer.byteLength(ALL))));
    expect(text).toContain('42');
  });

  test.each([
    'otpCode',
    'otp',
    'OTP',
    'phone_number',
    'accessToken',
    'refresh_token',
    'deviceToken',
    'Authorization',
    'set-cookie',
    'X-API-Key',
    'apiKey',
    'client_secret',
    'password',
    'altcha',
  ])('a described value leaves the field %s out, whatever it holds', (name) => {
    expect(describeValue({ deep: [{ [name]: 'harmless', other: 'kept' }] })).toEqual({
      deep: [{ [name]: '***', other: 'kept' }],
    });
  });

  test('a described value hides a code by the name of its field, and keeps the codes of errors', () => {
    const fields = {
      code: 'otp_incorrect',
      statusCode: 404,
      upstreamStatus: 402,
      tokenType: 'Bearer',
      count: 123456,
    };
    expect(describeValue(fields)).toEqual(fields);
    expect(describeValue({ code: '123456', smsCode: 123456 })).toEqual({ code: '***', smsCode: '***' });
  });

  test('a described value ends with circles, depth and width, and says how much it left out', () => {
    const circle: Record<string, unknown> = { list: Array.from({ length: 10_000 }, (_, i) => ({ i })) };
    circle.self = circle;
    const deep = Array.from({ length: 50 }).reduce((inner) => ({ inner }), {});
    const text = JSON.stringify(describeValue({ circle, deep }));
    expect(text).toContain('[circular]');
    expect(text).toContain('[more]');
    expect(text.length).toBeLessThan(10_000);
  });

  test('a described value does not call toJSON, and survives getters that throw', () => {
    const broken = {
      toJSON: () => ALL,
      get worse(): string {
        throw new Error(ALL);
      },
      fine: 1,
    };
    expect(describeValue(broken)).toEqual({ toJSON: '[function]', worse: '[unreadable]', fine: 1 });
    const refuses = new Proxy(
      {},
      {
        ownKeys: () => {
          throw new Error(ALL);
        },
      },
    );
    expect(describeValue({ refuses, fine: 1 })).toEqual({ refuses: '[unreadable]', fine: 1 });
  });

  test('a described AggregateError lists the errors that it gathered', () => {
    const gathered = new AggregateError(
      [Object.assign(new Error(`no ${NUMBER}`), { code: 'ECONNREFUSED' }), KEY],
      '',
    );
    expect(describeError(gathered)).toMatchObject({
      name: 'AggregateError',
      errors: [{ name: 'Error', message: 'no +91******', code: 'ECONNREFUSED' }, { message: 'sm_live_***' }],
    });
  });
});

describe('Logger', () => {
  test('the logger writes one JSON line with time, level and fields', () => {
    logger.info('request', { requestId: 'r-1', status: 200 });
    const { time, ...line } = onlyLine();
    expect(line).toEqual({ level: 'info', msg: 'request', requestId: 'r-1', status: 200 });
    expect(String(time)).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(lines[0]!.endsWith('\n')).toBe(true);
  });

  test('the logger keeps a message with line breaks on one line, so that a caller cannot forge lines', () => {
    logger.warn('first\n{"level":"info","msg":"forged"}');
    expect(lines[0]!.trimEnd()).not.toContain('\n');
    expect(onlyLine().msg).toBe('first\n{"level":"info","msg":"forged"}');
  });

  test.each(['log', 'debug', 'verbose', 'warn', 'error', 'fatal'] as const)(
    'the logger redacts the message of %s, as text and as an error',
    (method) => {
      logger[method](`text ${ALL}`);
      logger[method](new Error(`error ${ALL}`, { cause: new Error(ALL) }));
      logger[method](axiosError());
      logger[method](redisError());
      expect(lines).toHaveLength(4);
      expectClean(lines.join(''));
      expect(lines[0]).toContain('text +91******');
      expect(lines[1]).toContain('error +91******');
    },
  );

  test('the logger redacts the stack and the context that Nest passes behind the message', () => {
    logger.error('failed', new Error(ALL).stack, `Context ${ALL}`);
    logger.error('failed', `stack ${ALL}`);
    logger.warn('failed', axiosError());
    expect(lines).toHaveLength(3);
    expectClean(lines.join(''));
  });

  test('the logger describes the field `error` and serialises no property that the error carries', () => {
    logger.warn('Redis connection failed', { error: redisError() });
    logger.error('upstream failed', { error: axiosError() });
    logger.info('wrapped', { error: new Error('outer', { cause: axiosError() }) });
    expect(lines).toHaveLength(3);
    expectClean(lines.join(''));
    const [first] = lines.map((line) => JSON.parse(line) as { error: object });
    expect(Object.keys(first!.error)).toEqual(['name', 'message', 'stack']);
    expect(lines[1]).toContain('ERR_BAD_REQUEST');
  });

  test('the logger redacts every field of a line', () => {
    logger.info('request', { note: ALL, deep: [{ text: ALL }], otpCode: '123456', ratio: 0.5 });
    logger.error('No money', { alert: 'wallet_exhausted', upstreamMessage: ALL });
    logger.audit('admin.block', { reason: ALL });
    expect(lines).toHaveLength(3);
    expectClean(lines.join(''));
    expect(lines.join('')).not.toContain('123456');
    expect(lines[0]).toContain('"ratio":0.5');
  });

  test('the logger hides the secrets of the configuration in any shape, also encoded', () => {
    const secrets = ['correct horse/battery', '(a+b)*c$[d]', 'correct horse/battery staple'];
    const careful = new Logger('trace', { write: (line) => lines.push(line) }, secrets);
    for (const secret of secrets)
      careful.warn(`has ${secret}, ${encodeURIComponent(secret)}.`, { x: [secret] });
    expect(lines.join('')).not.toMatch(/horse|a\+b|staple|a%2Bb/);
    expect(onlyMessages()).toEqual(Array(3).fill('has ***, ***.'));
  });

  test('the logger loses no line over an unreadable value, and never throws', () => {
    const thrower = (): never => {
      throw new Error(ALL);
    };
    const hostile = Object.defineProperty(new Error('x'), 'message', { get: thrower });
    logger.error(hostile);
    logger.error({
      toString: thrower,
      get x() {
        return thrower();
      },
    });
    logger.warn('fields', new Proxy({}, { ownKeys: thrower }));
    logger.warn('error', { error: hostile });
    logger.log(undefined);
    logger.log(Symbol('x'));
    logger.log('\ud800 alone');
    expect(lines).toHaveLength(7);
    expectClean(lines.join(''));
    expect(lines.map((line) => (JSON.parse(line) as { msg: unknown }).msg)).toEqual([
      '[unreadable]',
      expect.stringContaining('[unreadable]'),
      'fields',
      'error',
      'undefined',
      'Symbol(x)',
      expect.stringContaining('alone'),
    ]);
  });

  test('the logger writes nothing below its level', () => {
    const quiet = new Logger('warn', { write: (line) => lines.push(line) });
    quiet.log('x');
    quiet.info('x');
    quiet.verbose('x');
    expect(lines).toEqual([]);
    quiet.warn('x');
    expect(lines).toHaveLength(1);
  });
});

describe('the lines of one request', () => {
  test('lines of one request carry its id, and no field of another request', () => {
    requestContext.run({ requestId: 'r-1' }, () => {
      logger.warn('first', { secretish: 'a' });
      logger.info('second', { other: 'b' });
    });
    const [first, second] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(first).toMatchObject({ requestId: 'r-1', secretish: 'a' });
    expect(second).toMatchObject({ requestId: 'r-1', other: 'b' });
    expect(second).not.toHaveProperty('secretish');
  });
});

describe('what a request is about', () => {
  const inRequest = (work: () => void): void => {
    requestContext.run({ requestId: 'r-1', traceId: 't-1', secrets: new Set() }, work);
  };

  test('trace and pseudonym stand in all later lines of their request', () => {
    inRequest(() => {
      logger.info('before');
      aboutNumber('ajXFAKEpseudonym-00QQQ');
      logger.info('after');
    });
    logger.info('outside');
    const [before, after, outside] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(before).toMatchObject({ requestId: 'r-1', traceId: 't-1' });
    expect(before).not.toHaveProperty('phone');
    expect(after).toMatchObject({ requestId: 'r-1', traceId: 't-1', phone: 'ajXFAKEpseudonym-00QQQ' });
    for (const name of ['requestId', 'traceId', 'phone', 'secrets']) expect(outside).not.toHaveProperty(name);
  });

  test('the number of a request is not learnt from an id that a caller made up', () => {
    inRequest(() => {
      aboutNumber('9876543210AAAAAAAAAAAA');
      logger.info('x');
    });
    expectClean(lines.join(''));
  });

  test('codes and tokens of a request are hidden in its own lines, where they stand by themselves', () => {
    const token = 'Opaque-Token-Of-Nobody';
    inRequest(() => {
      conceal('482913');
      conceal(token);
      logger.warn(`it was 482913, not 4829131`, {
        n: 482913,
        deep: [`x${token}x`],
        error: new Error('at 482913'),
      });
    });
    expect(lines[0]).not.toMatch(/(?<!\d)482913(?!\d)|Opaque/);
    expect(lines[0]).toContain('4829131');
    logger.info('another request, 482913 keys');
    expect(lines[1]).toContain('482913');
  });

  test('a caller that brings thousands of texts makes a line search for twelve of them', () => {
    inRequest(() => {
      for (let word = 1_001; word < 4_001; word += 1) conceal(String(word));
      logger.info('1012 1013');
    });
    expect(onlyMessages()).toEqual(['*** 1013']);
  });

  test('a caller cannot blank text of our own lines', () => {
    inRequest(() => {
      for (const word of [
        'wallet_exhausted',
        'error',
        'request',
        'Redis command failed',
        '',
        '\ud800'.repeat(20),
      ])
        conceal(word);
      logger.error('Redis command failed', { alert: 'wallet_exhausted' });
    });
    expect(onlyLine()).toMatchObject({
      level: 'error',
      alert: 'wallet_exhausted',
      msg: 'Redis command failed',
    });
  });
});

describe('the trace id', () => {
  const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
  const PARENT = '00f067aa0ba902b7';

  test.each([
    ['version 00', `00-${TRACE}-${PARENT}-01`],
    ['other flags', `00-${TRACE}-${PARENT}-ff`],
    ['a later version', `cc-${TRACE}-${PARENT}-01`],
    ['a later version that says more', `cc-${TRACE}-${PARENT}-01-what-the-future-will-be-like`],
  ])('the trace id is taken from the header of the caller: %s', (_, header) => {
    expect(traceIdOf(header)).toBe(TRACE);
  });

  test.each([
    ['there is none', undefined],
    ['it is empty', ''],
    ['it came twice', [`00-${TRACE}-${PARENT}-01`]],
    ['two are joined', `00-${TRACE}-${PARENT}-01, 00-${TRACE}-${PARENT}-01`],
    ['it is upper case', `00-${TRACE.toUpperCase()}-${PARENT}-01`],
    ['the version is forbidden', `ff-${TRACE}-${PARENT}-01`],
    ['version 00 says more', `00-${TRACE}-${PARENT}-01-x`],
    ['the trace id is zero', `00-${'0'.repeat(32)}-${PARENT}-01`],
    ['the parent id is zero', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['it is too short', `00-${TRACE.slice(1)}-${PARENT}-01`],
    ['it is no hex', `00-${TRACE.replace('4', 'g')}-${PARENT}-01`],
    ['something follows', `00-${TRACE}-${PARENT}-01x`],
    ['a line follows', `00-${TRACE}-${PARENT}-01\nx`],
    ['it is a phone number behind zeros', `00-${'0'.repeat(20)}919876543210-${PARENT}-01`],
    ['it is a phone number among letters', `00-a${'0'.repeat(19)}919876543210-${PARENT}-01`],
    ['it is a national number behind zeros', `00-${'0'.repeat(20)}9876543210ab-${PARENT}-01`],
  ])('the trace id is a new one when %s', (_, header) => {
    const [one, two] = [traceIdOf(header), traceIdOf(header)];
    expect(one).toMatch(/^[\da-f]{32}$/);
    expect(new Set([one, two, TRACE, TRACE.toUpperCase()]).size).toBe(4);
    expectClean(one);
  });
});

test('the logger writes no half of a surrogate pair, and cuts none in half', () => {
  logger.info('half \ud83d', {
    ['half \ud83d']: `${'x'.repeat(3_999)}😀`,
    error: new Error('x'.repeat(999) + '😀'),
  });
  // As its escape it is good JSON, which many readers refuse all the same.
  expect(JSON.stringify(onlyLine())).not.toContain('\\ud83d');
  expect(onlyLine()).toMatchObject({ msg: 'half \ufffd', error: { message: `${'x'.repeat(999)}\ufffd` } });
});

test('the logger does not write a phone number as the pseudonym of an id that a caller made up', () => {
  for (const id of ['AAAAAAAA919876543210AA', '1234569876543210AAAAAA'])
    requestContext.run({ requestId: 'r-1' }, () => {
      aboutNumber(id);
      logger.info('request');
    });
  expectClean(lines.join(''));
});

test('the logger does not write an id that a caller made of its code', () => {
  requestContext.run({ requestId: '271828', secrets: new Set() }, () => {
    conceal('271828');
    logger.info('request');
  });
  expect(onlyLine()).toMatchObject({ requestId: '***' });
});

describe('the audit', () => {
  test.each(['trace', 'info', 'error', 'fatal'])(
    'the audit is written to the log at LOG_LEVEL=%s',
    (level) => {
      new Logger(level, { write: (line) => lines.push(line) }).audit('admin.block', { admin: 'ops' });
      expect(onlyLine()).toMatchObject({ audit: 'admin.block', admin: 'ops', level: 'info' });
    },
  );
});
