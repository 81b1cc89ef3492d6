import { Logger } from '../../src/logging/logger';
import { describeError, redact } from '../../src/logging/redact';
import { requestContext } from '../../src/logging/request-context';

const NUMBER = '+919876543210';
const KEY = `sm_live_${'5e'.repeat(20)}`;
const JWT =
  'eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJhYmMifQ.MEUCIQDx_y-z0123456789abcdefghijklmnopqrstuvwxyzAB';
const REDIS = 'rediss+cluster://user:hunter2@cache-1:6379,cache-2:6379';
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
  ])('hides %s', (_, text) => {
    expectClean(redact(`before ${text} after`));
    expect(redact(`before ${text} after`)).toMatch(/^before .*after$/);
  });

  test('keeps what operators look for', () => {
    expect(redact(REDIS)).toBe('rediss+cluster://***@cache-1:6379,cache-2:6379');
    expect(redact(KEY)).toBe('sm_live_***');
    expect(redact('redis://cache:6379/0 refused')).toBe('redis://cache:6379/0 refused');
    const plain = 'POST /auth/send-otp 200 in 1234567890 ns at 2026-11-21T10:00:00.000Z, 60 of 600';
    expect(redact(plain)).toBe(plain);
  });

  test('does not hang on long text', () => {
    const began = performance.now();
    for (const text of ['eyJ', '91', '9', 'redis://', 'sm_live_', 'eyJ.']) redact(text.repeat(50_000));
    expect(performance.now() - began).toBeLessThan(2_000);
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
  test('tells name, message, code, reason and stack', () => {
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

  test('redacts message, stack and every cause', () => {
    const error = new Error(`one ${ALL}`, {
      cause: new Error(`two ${ALL}`, { cause: new Error(`three ${ALL}`, { cause: ALL }) }),
    });
    const text = JSON.stringify(describeError(error));
    expectClean(text);
    for (const message of ['one +91******', 'two +91******', 'three +91******'])
      expect(text).toContain(message);
    expect(text).toContain('sm_live_***');
  });

  test('takes nothing else of an error', () => {
    expect(Object.keys(describeError(redisError()))).toEqual(['name', 'message', 'stack']);
    expect(Object.keys(describeError(axiosError()))).toEqual(['name', 'message', 'code', 'stack']);
    expectClean(JSON.stringify(describeError(new Error('x', { cause: axiosError() }))));
    expectClean(JSON.stringify(describeError(new AggregateError([redisError(), new Error(ALL)], 'several'))));
  });

  test('redacts before it cuts, so that no half of a secret is left', () => {
    for (let at = 980; at < 1_001; at++) {
      expectClean(String(describeError(new Error(' '.repeat(at) + ALL)).message));
    }
    expect(String(describeError(new Error('x'.repeat(100_000))).message)).toHaveLength(1_000);
    expect(JSON.stringify(describeError(new Error('x'.repeat(100_000)))).length).toBeLessThan(6_000);
  });

  test('reads what is no error', () => {
    expect(describeError(ALL)).toEqual({ message: redact(ALL) });
    expect(describeError(undefined)).toEqual({ message: 'undefined' });
    expect(describeError(null)).toEqual({ message: 'null' });
    expect(describeError(Symbol('x'))).toEqual({ message: 'Symbol(x)' });
    expectClean(JSON.stringify(describeError({ message: ALL, toString: () => ALL })));
  });

  test('ends with causes that go in a circle', () => {
    const [one, two] = [new Error('one'), new Error('two')];
    one.cause = two;
    two.cause = one;
    expect(JSON.stringify(describeError(one)).length).toBeLessThan(6_000);
  });
});

describe('Logger', () => {
  test('writes one JSON line with time, level and fields', () => {
    logger.info('request', { requestId: 'r-1', status: 200 });
    const { time, ...line } = onlyLine();
    expect(line).toEqual({ level: 'info', msg: 'request', requestId: 'r-1', status: 200 });
    expect(String(time)).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(lines[0]!.endsWith('\n')).toBe(true);
  });

  test('keeps a message with line breaks on one line: a caller must not write lines of its own', () => {
    logger.warn('first\n{"level":"info","msg":"forged"}');
    expect(lines[0]!.trimEnd()).not.toContain('\n');
    expect(onlyLine().msg).toBe('first\n{"level":"info","msg":"forged"}');
  });

  test('names an alert in a field of its own', () => {
    logger.alert('wallet_exhausted', 'No money', { upstreamStatus: 402 });
    expect(onlyLine()).toMatchObject({ level: 'error', alert: 'wallet_exhausted', upstreamStatus: 402 });
  });

  test.each(['log', 'debug', 'verbose', 'warn', 'error', 'fatal'] as const)(
    'redacts the message of %s, as text and as an error',
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

  test('redacts what Nest hands over behind the message: a stack, a context', () => {
    logger.error('failed', new Error(ALL).stack, `Context ${ALL}`);
    logger.error('failed', `stack ${ALL}`);
    logger.warn('failed', axiosError());
    expect(lines).toHaveLength(3);
    expectClean(lines.join(''));
  });

  test('describes the field `error` and serialises nothing that the error carries', () => {
    logger.warn('Redis connection failed', { error: redisError() });
    logger.error('upstream failed', { error: axiosError() });
    logger.info('wrapped', { error: new Error('outer', { cause: axiosError() }) });
    expect(lines).toHaveLength(3);
    expectClean(lines.join(''));
    const [first] = lines.map((line) => JSON.parse(line) as { error: object });
    expect(Object.keys(first!.error)).toEqual(['name', 'message', 'stack']);
    expect(lines[1]).toContain('ERR_BAD_REQUEST');
  });

  test('writes nothing below its level', () => {
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
  test('carry its id, and none of them what another one said', () => {
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

describe('the audit', () => {
  test.each(['trace', 'info', 'error', 'fatal'])('is written at LOG_LEVEL=%s', (level) => {
    new Logger(level, { write: (line) => lines.push(line) }).audit('admin.block', { admin: 'ops' });
    expect(onlyLine()).toMatchObject({ audit: 'admin.block', admin: 'ops', level: 'info' });
  });
});
