import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { ConfigError, SETTING_NAMES, tokenDigest, type Environment } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';

const KEY = `sm_live_${'0123456789'.repeat(4)}`;
const DEVELOPMENT: Environment = { STARTMESSAGING_API_KEY: KEY };
const RANDOM = 'k3v9Qw7zLm2Xc8Rt5Yb1Nd6Hf4Jg0PsA';
const WEAK =
  'must not be a shorter text repeated, and must have 8 different characters or more, in production';
let folder: string;
let PRODUCTION: Environment;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'config-'));
  PRODUCTION = {
    NODE_ENV: 'production',
    ISSUER: 'https://login.example.com',
    REDIS_URL: 'rediss://:hunter2@redis.internal:6379/0',
    STARTMESSAGING_API_KEY: KEY,
    STARTMESSAGING_CONTRACT: 'caller',
    SECRET: 'first-0123456789-0123456789-0123456789',
    SUBJECT_SECRET: 'subject-0123456789-0123456789-0123456789',
    JWT_KEYS_DIR: folder,
    BUDGET_PAISE_PER_DAY: '100000',
  };
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

function faultsOf(environment: Environment): readonly string[] {
  try {
    readConfig(environment);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
}

const inDevelopment = (more: Environment) => readConfig({ ...DEVELOPMENT, ...more });
const developmentFaults = (more: Environment) => faultsOf({ ...DEVELOPMENT, ...more });
const productionFaults = (more: Environment) => faultsOf({ ...PRODUCTION, ...more });

function fileWith(content: string): string {
  const path = join(folder, `setting-${Math.random().toString(36).slice(2)}`);
  writeFileSync(path, content);
  return path;
}

describe('the defaults', () => {
  test('the defaults are those of the documentation when only an API key is set', () => {
    const { secrets, subjectSecret, warnings, ...config } = readConfig(DEVELOPMENT);
    expect(config).toEqual({
      nodeEnv: 'development',
      production: false,
      host: '0.0.0.0',
      keepAliveSeconds: 75,
      extraMobileSeries: [],
      port: 3000,
      issuer: 'http://localhost:3000',
      audience: 'otp-login',
      resourceAudiences: [],
      oauthClients: [],
      redisUrl: undefined,
      tokenPhoneNumber: false,
      swagger: true,
      logLevel: 'info',
      loginAccent: undefined,
      loginAppName: 'otp-login',
      loginLogo: undefined,
      loginPage: true,
      loginPrivacyUrl: undefined,
      loginReturnOrigins: [],
      loginTermsUrl: undefined,
      shutdownDelaySeconds: 5,
      providers: ['startmessaging'],
      sendWithSes: undefined,
      startMessagingApiKey: KEY,
      startMessagingBaseUrl: 'https://api.startmessaging.com',
      startMessagingContract: 'provider',
      startMessagingTemplateId: undefined,
      startMessagingAppName: 'otp-login',
      upstreamTimeoutMs: 10_000,
      upstreamConnectTimeoutMs: 3000,
      upstreamRetryDelayMs: 1000,
      upstreamDeadlineMs: 20_000,
      jwtKeysDir: undefined,
      otpTtlSeconds: 300,
      otpLength: 6,
      otpMaxAttempts: 3,
      accessTokenTtlSeconds: 600,
      sessionIdleTtlSeconds: 604_800,
      sessionMaxTtlSeconds: 2_592_000,
      sessionsPerUser: 10,
      refreshGraceSeconds: 60,
      limitPhone: [
        { count: 1, seconds: 30 },
        { count: 3, seconds: 300 },
        { count: 5, seconds: 3600 },
        { count: 10, seconds: 86_400 },
      ],
      limitIp: [
        { count: 20, seconds: 600 },
        { count: 100, seconds: 3600 },
      ],
      limitVerifyIp: [{ count: 60, seconds: 600 }],
      limitGlobal: [{ count: 15, seconds: 1 }],
      limitFailedCodes: [
        { count: 10, seconds: 3600 },
        { count: 20, seconds: 86_400 },
      ],
      budgetPaisePerHour: undefined,
      budgetPaisePerDay: undefined,
      smsPricePaise: 25,
      budgetReservePercent: 30,
      walletAlertPaise: 10_000,
      abuseConversion: 'observe',
      abuseWrongCodes: 'enforce',
      trustedProxies: [],
      corsOrigins: [],
      cookieInsecure: false,
      magicNumbers: false,
      phoneInboxUrl: undefined,
      introspectionClients: [],
      adminTokens: [],
      testNumbers: [],
      auditStreamEvents: 100_000,
      alertWebhookUrl: undefined,
      alertWebhookSecrets: [],
    });
    expect(secrets).toEqual([expect.stringMatching(/^[\w-]{43}$/)]);
    expect(subjectSecret).toMatch(/^[\w-]{43}$/);
    expect(warnings).toEqual([
      expect.stringMatching(/^SECRET is unset and random/),
      expect.stringMatching(/^SUBJECT_SECRET is unset and random/),
    ]);
  });

  test('the defaults make other secrets at every start', () => {
    const [one, other] = [readConfig(DEVELOPMENT), readConfig(DEVELOPMENT)];
    expect(new Set([...one.secrets, one.subjectSecret, ...other.secrets, other.subjectSecret]).size).toBe(4);
  });

  test('an empty variable has the default of its setting', () => {
    const empty = Object.fromEntries(
      SETTING_NAMES.flatMap((name) => [
        [name, ''],
        [`${name}_FILE`, ''],
      ]),
    );
    const own = { ...DEVELOPMENT, SECRET: 's', SUBJECT_SECRET: 't' };
    expect(Object.entries(readConfig({ ...empty, ...own }))).toEqual(Object.entries(readConfig(own)));
  });

  test('the service does not start without an API key', () => {
    expect(faultsOf({})).toEqual(['STARTMESSAGING_API_KEY is required']);
  });
});

describe('all faults', () => {
  // Wrong for every setting, and easy to find wherever it were to leak.
  const CANARY = 'canary\u0007,7c3e';
  const WRONG = Object.fromEntries(SETTING_NAMES.map((name) => [name, CANARY]));

  test('all faults of the configuration are reported together, each by name and rule', () => {
    const faults = faultsOf({ OTP_TTL_SECONDS: '601', PORT: '65536', NODE_ENV: 'test' });
    expect(faults).toEqual([
      'PORT must be a whole number from 0 to 65535',
      'STARTMESSAGING_API_KEY is required',
      'OTP_TTL_SECONDS must be a whole number from 1 to 600',
    ]);
    expect(faultsOf({ PORT: '3000', MANAGEMENT_PORT: '3000', NODE_ENV: 'test' })).toContain(
      'MANAGEMENT_PORT must not be the value of PORT',
    );
    expect(() => readConfig({ PORT: 'x' })).toThrow(
      new Error('PORT must be a whole number from 0 to 65535\nSTARTMESSAGING_API_KEY is required'),
    );
  });

  test.each(SETTING_NAMES)('all faults of %s name that setting once', (name) => {
    const faults = developmentFaults({ [name]: CANARY }).filter((fault) => fault.startsWith(`${name} `));
    expect(faults).toHaveLength(1);
  });

  test('the report of faults names every setting and no value', () => {
    for (const wrong of [WRONG, { ...WRONG, NODE_ENV: 'production' }]) {
      try {
        readConfig(wrong);
        throw new Error('nothing was refused');
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError);
        expect(inspect(error, { depth: null }).replaceAll('\\', '')).not.toMatch(/canary|7c3e/);
        const names = (error as ConfigError).faults.map((fault) => fault.split(' ')[0]);
        expect([...new Set([...names, 'NODE_ENV'])].sort()).toEqual([...SETTING_NAMES].sort());
      }
    }
  });

  test.each(['prod', 'Production', 'staging', 'PRODUCTION', 'production '])(
    'the faults of production are reported under the misspelt NODE_ENV %p',
    (nodeEnv) => {
      const faults = developmentFaults({ NODE_ENV: nodeEnv });
      expect(faults[0]).toBe('NODE_ENV must be development or test or production');
      expect(faults).toContain('SECRET is required in production');
    },
  );

  test('the report of faults leaves out faults that follow from another fault', () => {
    expect(
      developmentFaults({ ACCESS_TOKEN_TTL_SECONDS: 'soon', REFRESH_GRACE_SECONDS: '120' }),
    ).toHaveLength(1);
    expect(
      developmentFaults({ SESSION_MAX_TTL_SECONDS: '0', SESSION_IDLE_TTL_SECONDS: '9999999' }),
    ).toHaveLength(1);
  });
});

describe('production', () => {
  test('in production the service starts without a warning when every recommended setting is set', () => {
    const config = readConfig(PRODUCTION);
    expect(config).toMatchObject({ production: true, swagger: false, warnings: [] });
  });

  test.each([
    'ISSUER',
    'REDIS_URL',
    'STARTMESSAGING_CONTRACT',
    'SECRET',
    'SUBJECT_SECRET',
    'JWT_KEYS_DIR',
    'BUDGET_PAISE_PER_DAY',
  ])('in production the service does not start without %s', (name) => {
    expect(productionFaults({ [name]: undefined })).toEqual([`${name} is required in production`]);
    expect(productionFaults({ [name]: '' })).toEqual([`${name} is required in production`]);
  });

  test('in production the service does not start without STARTMESSAGING_API_KEY', () => {
    expect(productionFaults({ STARTMESSAGING_API_KEY: '' })).toEqual(['STARTMESSAGING_API_KEY is required']);
  });

  test('in production every missing setting is named in one error', () => {
    expect(faultsOf({ NODE_ENV: 'production' })).toHaveLength(8);
  });

  test.each([
    [
      'STARTMESSAGING_BASE_URL',
      'http://sms.internal',
      'must be https in production, except to a loopback address',
    ],
    ['OTP_LENGTH', '5', 'must be 6 or more in production'],
    ['COOKIE_INSECURE', 'true', 'must not be true in production: the refresh token would travel without TLS'],
    ['SECRET', 's'.repeat(31), 'must have 32 characters or more in production'],
    ['SECRET', `${RANDOM},${RANDOM.slice(1)}`, 'must have 32 characters or more in production'],
    ['SECRET', `${RANDOM},${'correct horse '.repeat(3)}`, WEAK],
    ['SECRET', 'abcdefghij0123456789abcdefghij0123456789abc', WEAK],
    ['SECRET', '01234560123456543210654321012345', WEAK],
    ['SUBJECT_SECRET', 's'.repeat(32), WEAK],
    ['INTROSPECTION_CLIENTS', `a:${RANDOM},b:${'secret-of-b-'.repeat(3)}`, WEAK],
    ['SECRET', 'change-me-change-me-change-me-change-me', 'must not be a placeholder in production'],
    ['SUBJECT_SECRET', 's'.repeat(31), 'must have 32 characters or more in production'],
    ['SUBJECT_SECRET', 'replace_me_0123456789_0123456789_0123', 'must not be a placeholder in production'],
    [
      'TRUSTED_PROXIES',
      '10.0.0.0/8,0.0.0.0/0',
      'must not hold every address (0.0.0.0/0 or ::/0) in production',
    ],
    ['TRUSTED_PROXIES', '::/0', 'must not hold every address (0.0.0.0/0 or ::/0) in production'],
    ['TRUSTED_PROXIES', '::ffff:0:0/96', 'must not hold every address (0.0.0.0/0 or ::/0) in production'],
  ])('in production the service refuses to start with %s=%s', (name, value, fault) => {
    expect(productionFaults({ [name]: value })).toEqual([`${name} ${fault}`]);
    // Each is a refusal of production alone, but for what is wrong anywhere.
    expect(developmentFaults({ [name]: value })).toEqual([]);
  });

  test.each([
    ['ISSUER', 'http://login.example.com'],
    ['CORS_ORIGINS', 'https://a.example,http://b.example'],
    ['SUBJECT_SECRET', 'first-0123456789-0123456789-0123456789'],
  ])('in production the service warns about %s=%s', (name, value) => {
    expect(readConfig({ ...PRODUCTION, [name]: value }).warnings).toEqual([
      expect.stringMatching(new RegExp(`^${name} `)),
    ]);
  });

  test.each(['http://localhost:3000', 'http://127.0.0.1:8080', 'http://[::1]:3000'])(
    'in production the service accepts %s, which stays on the machine',
    (url) => {
      expect(productionFaults({ ISSUER: url, STARTMESSAGING_BASE_URL: url })).toEqual([]);
    },
  );

  test.each(['http://127.0.0.1.example.com', 'http://localhost.example.com'])(
    'in production the service does not take %s for an address of this machine',
    (url) => {
      expect(productionFaults({ STARTMESSAGING_BASE_URL: url })).toHaveLength(1);
    },
  );

  test('in production a JWT_KEYS_DIR that is a file or does not exist is refused', () => {
    for (const path of [fileWith(''), join(folder, 'missing')]) {
      expect(productionFaults({ JWT_KEYS_DIR: path })).toEqual(['JWT_KEYS_DIR must be a readable folder']);
    }
  });

  test('in production the service warns about a Redis without a password unless it is local', () => {
    const warnings = (url: string) => readConfig({ ...PRODUCTION, REDIS_URL: url }).warnings;
    expect(warnings('rediss://redis.internal')).toEqual(['REDIS_URL has no password']);
    expect(warnings('redis://127.0.0.1:6379')).toEqual([]);
  });

  test('in production the service warns about a Redis without TLS unless it is local', () => {
    const warnings = (url: string) => readConfig({ ...PRODUCTION, REDIS_URL: url }).warnings;
    const warning = 'REDIS_URL reaches another host without TLS: use the scheme with rediss';
    expect(warnings('redis://:hunter2@redis.internal:6379')).toEqual([warning]);
    expect(warnings('redis+cluster://:hunter2@127.0.0.1:6379,redis.internal:6379')).toEqual([warning]);
    expect(warnings('redis://:hunter2@localhost:6379')).toEqual([]);
    expect(warnings('rediss+cluster://:hunter2@redis.internal:6379')).toEqual([]);
  });

  test('in production the service does not start when Node.js accepts every certificate', () => {
    const variable = { NODE_TLS_REJECT_UNAUTHORIZED: '0' };
    expect(productionFaults(variable)).toEqual(['NODE_TLS_REJECT_UNAUTHORIZED must not be 0 in production']);
    expect(productionFaults({ NODE_TLS_REJECT_UNAUTHORIZED: '1' })).toEqual([]);
    expect(inDevelopment(variable).warnings).toContainEqual(
      expect.stringMatching(/^NODE_TLS_REJECT_UNAUTHORIZED /),
    );
  });

  test('in production a secret of random bytes is accepted in each usual spelling', () => {
    for (let i = 0; i < 200; i++) {
      for (const encoding of ['hex', 'base64', 'base64url'] as const) {
        const SECRET = randomBytes(32).toString(encoding);
        expect(productionFaults({ SECRET })).toEqual([]);
      }
    }
  });

  test('in production private networks are accepted as trusted proxies', () => {
    expect(productionFaults({ TRUSTED_PROXIES: '10.0.0.0/8, fc00::/7, ::ffff:10.0.0.0/104' })).toEqual([]);
  });
});

describe('NAME_FILE', () => {
  test.each([
    ['x'.repeat(40), 'x'.repeat(40)],
    [`${'x'.repeat(40)}\n`, 'x'.repeat(40)],
    [`${'x'.repeat(40)}\r\n`, 'x'.repeat(40)],
    [` ${'x'.repeat(40)} \n`, ` ${'x'.repeat(40)} `],
  ])('a setting NAME_FILE gives the content of its file, less one newline (%j)', (content, value) => {
    expect(inDevelopment({ SUBJECT_SECRET_FILE: fileWith(content) }).subjectSecret).toBe(value);
  });

  test('a setting NAME_FILE removes one final newline only', () => {
    expect(developmentFaults({ SUBJECT_SECRET_FILE: fileWith('x\n\n') })).toHaveLength(1);
  });

  test('every setting can be read from a file', () => {
    const config = inDevelopment({
      NODE_ENV_FILE: fileWith('test'),
      PORT_FILE: fileWith('8080\n'),
      LIMIT_IP_FILE: fileWith('1/1'),
    });
    expect(config).toMatchObject({ nodeEnv: 'test', port: 8080, limitIp: [{ count: 1, seconds: 1 }] });
  });

  test('a setting is unset when its file is empty', () => {
    expect(inDevelopment({ PORT_FILE: fileWith('\n') }).port).toBe(3000);
  });

  test('a setting NAME_FILE is refused beside NAME', () => {
    expect(developmentFaults({ PORT: '1', PORT_FILE: fileWith('1') })).toEqual([
      'PORT and PORT_FILE are both set: choose one',
    ]);
    expect(inDevelopment({ PORT: '', PORT_FILE: fileWith('1') }).port).toBe(1);
  });

  test('an unreadable NAME_FILE is refused by its name, and its path is not shown', () => {
    for (const path of [join(folder, 'canary-missing'), folder]) {
      expect(productionFaults({ SECRET: '', SECRET_FILE: path })).toEqual([
        'SECRET_FILE must name a readable file',
      ]);
    }
    expect(faultsOf({ STARTMESSAGING_API_KEY_FILE: '/canary' })).toEqual([
      'STARTMESSAGING_API_KEY_FILE must name a readable file',
    ]);
    expect(developmentFaults({ NODE_ENV_FILE: '/canary' })[0]).toBe(
      'NODE_ENV_FILE must name a readable file',
    );
  });
});

describe('numbers', () => {
  test.each([
    '1e3',
    '0x10',
    ' 5',
    '5 ',
    '+5',
    '-5',
    '5.0',
    '5.',
    '05',
    '٥',
    'NaN',
    'Infinity',
    '9'.repeat(20),
  ])('a numeric setting refuses the text %p', (text) => {
    expect(developmentFaults({ SESSIONS_PER_USER: text })).toEqual([
      'SESSIONS_PER_USER must be a whole number from 1 to 100',
    ]);
  });

  test.each([
    ['PORT', 0, 65_535],
    ['MANAGEMENT_PORT', 1, 65_535],
    ['SHUTDOWN_DELAY_SECONDS', 0, 20],
    ['OTP_TTL_SECONDS', 1, 600],
    ['OTP_LENGTH', 4, 8],
    ['OTP_MAX_ATTEMPTS', 1, 5],
    ['REFRESH_GRACE_SECONDS', 0, 120],
    ['ACCESS_TOKEN_TTL_SECONDS', 1, 86_400],
    ['UPSTREAM_RETRY_DELAY_MS', 0, 45_000],
    ['SMS_PRICE_PAISE', 1, 100_000],
    ['BUDGET_PAISE_PER_HOUR', 0, 100_000_000_000],
    ['BUDGET_RESERVE_PERCENT', 0, 100],
  ])('the numeric setting %s accepts whole numbers from %d to %d only', (name, minimum, maximum) => {
    for (const value of [minimum, maximum]) expect(developmentFaults({ [name]: String(value) })).toEqual([]);
    for (const value of [minimum - 1, maximum + 1]) {
      expect(developmentFaults({ [name]: String(value) })).toEqual([
        `${name} must be a whole number from ${minimum} to ${maximum}`,
      ]);
    }
  });
});

describe('settings that depend on each other', () => {
  const caller = { STARTMESSAGING_CONTRACT: 'caller' };

  test('a code of the caller contract must live for whole minutes', () => {
    expect(inDevelopment({ ...caller, OTP_TTL_SECONDS: '120' }).otpTtlSeconds).toBe(120);
    expect(inDevelopment({ OTP_TTL_SECONDS: '90' }).otpTtlSeconds).toBe(90);
    expect(developmentFaults({ ...caller, OTP_TTL_SECONDS: '90' })).toEqual([
      'OTP_TTL_SECONDS must be whole minutes (a multiple of 60) when STARTMESSAGING_CONTRACT is caller',
    ]);
  });

  test('a code of the caller contract may not live longer than upstream accepts', () => {
    expect(inDevelopment({ OTP_LENGTH: '8' }).otpLength).toBe(8);
    expect(developmentFaults({ ...caller, OTP_LENGTH: '7' })[0]).toMatch(/^OTP_LENGTH must be 6 or less/);
  });

  test('the refresh grace must be shorter than the life of an access token', () => {
    expect(developmentFaults({ ACCESS_TOKEN_TTL_SECONDS: '60', REFRESH_GRACE_SECONDS: '60' })).toEqual([
      'REFRESH_GRACE_SECONDS must be below ACCESS_TOKEN_TTL_SECONDS',
    ]);
    expect(inDevelopment({ ACCESS_TOKEN_TTL_SECONDS: '5' }).refreshGraceSeconds).toBe(4);
  });

  test('the idle limit of a session must be within its absolute limit', () => {
    expect(developmentFaults({ SESSION_IDLE_TTL_SECONDS: '61', SESSION_MAX_TTL_SECONDS: '60' })).toEqual([
      'SESSION_IDLE_TTL_SECONDS must not exceed SESSION_MAX_TTL_SECONDS',
    ]);
    expect(inDevelopment({ SESSION_MAX_TTL_SECONDS: '60' }).sessionIdleTtlSeconds).toBe(60);
  });
});

describe('limits', () => {
  test('a limit is a list of count/seconds, with or without spaces around the commas', () => {
    expect(inDevelopment({ LIMIT_PHONE: '1/30' }).limitPhone).toEqual([{ count: 1, seconds: 30 }]);
    expect(inDevelopment({ LIMIT_PHONE: ' 5/3600 ,1/30' }).limitPhone).toEqual([
      { count: 5, seconds: 3600 },
      { count: 1, seconds: 30 },
    ]);
  });

  test.each([
    ...[
      '1',
      '1/',
      '/30',
      '1/30/2',
      '1/30,',
      ',1/30',
      '1/30,,5/3600',
      '1/30;5/3600',
      '1 / 30',
      '1/30s',
      '1.5/30',
    ],
    ...['0/30', '1/0', '-1/30', '1/2592001', '1000001/1', '1e2/30', 'one/30', '*', '01/30', '1/30,2/30'],
  ])('a limit setting refuses the text %p', (text) => {
    for (const name of ['LIMIT_PHONE', 'LIMIT_IP', 'LIMIT_VERIFY_IP', 'LIMIT_GLOBAL', 'LIMIT_FAILED_CODES']) {
      expect(developmentFaults({ [name]: text })).toEqual([
        `${name} must be a comma-separated list of count/seconds with a count from 1 to 1000000 and seconds from 1 ` +
          'to 2592000, no two entries with the same seconds',
      ]);
    }
  });
});

describe('budgets', () => {
  test.each([
    ['14999', undefined],
    ['15000', 2_500],
    ['50000', 8_333],
    ['600000', 100_000],
    ['0', undefined],
  ])('a daily budget of %s paise gives the hourly budget %p by default', (perDay, perHour) => {
    expect(inDevelopment({ BUDGET_PAISE_PER_DAY: perDay }).budgetPaisePerHour).toBe(perHour);
    const own = inDevelopment({ BUDGET_PAISE_PER_DAY: perDay, BUDGET_PAISE_PER_HOUR: '40' });
    expect(own.budgetPaisePerHour).toBe(40);
  });

  test('the status of a returning number lasts longer than any session, whatever SESSION_MAX_TTL_SECONDS is', () => {
    for (const seconds of ['86400', '2592000', '31536000']) {
      const config = inDevelopment({ SESSION_IDLE_TTL_SECONDS: '600', SESSION_MAX_TTL_SECONDS: seconds });
      expect(config.returningSeconds).toBe(config.sessionMaxTtlSeconds + 30 * 86_400);
    }
  });

  test('the service warns about a window of failed codes that no unlock clears', () => {
    expect(inDevelopment({ LIMIT_FAILED_CODES: '10/3600,100/86401' }).warnings).toContainEqual(
      expect.stringMatching(/^LIMIT_FAILED_CODES has a window of more than a day/),
    );
    expect(inDevelopment({ LIMIT_FAILED_CODES: '10/3600,100/86400' }).warnings.join()).not.toContain(
      'FAILED',
    );
  });

  test('the service warns about a budget that pays for no SMS at all', () => {
    expect(inDevelopment({ BUDGET_PAISE_PER_HOUR: '24', BUDGET_PAISE_PER_DAY: '25' }).warnings).toContain(
      'BUDGET_PAISE_PER_HOUR does not pay for one SMS: none is sent',
    );
    expect(inDevelopment({ BUDGET_PAISE_PER_DAY: '25' }).warnings).toContain(
      'BUDGET_PAISE_PER_DAY and BUDGET_RESERVE_PERCENT leave nothing for new numbers',
    );
    expect(inDevelopment({ BUDGET_PAISE_PER_DAY: '36' }).warnings.join()).not.toContain('BUDGET');
    const unreserved = { BUDGET_PAISE_PER_DAY: '25', BUDGET_RESERVE_PERCENT: '0' };
    expect(inDevelopment(unreserved).warnings.join()).not.toContain('BUDGET');
  });
});

describe('the abuse control', () => {
  test.each([
    ['ABUSE_CONVERSION', 'abuseConversion'],
    ['ABUSE_WRONG_CODES', 'abuseWrongCodes'],
  ] as const)('the abuse control setting %s is read as it is written', (name, field) => {
    for (const mode of ['off', 'observe', 'enforce']) {
      expect(inDevelopment({ [name]: mode })[field]).toBe(mode);
      expect(readConfig({ ...PRODUCTION, [name]: mode })[field]).toBe(mode);
    }
    for (const mode of ['on', 'Observe', 'enforce ', 'true', 'off,observe', 'constructor']) {
      expect(developmentFaults({ [name]: mode })).toEqual([`${name} must be off or observe or enforce`]);
    }
  });
});

describe('ISSUER', () => {
  test.each(['https://login.example.com', 'https://login.example.com/', 'http://localhost:3000/tenant'])(
    'ISSUER keeps the URL %s letter by letter',
    (issuer) => {
      expect(inDevelopment({ ISSUER: issuer }).issuer).toBe(issuer);
    },
  );

  test.each([
    ...[
      'login.example.com',
      'ftp://x.example',
      'https://x.example?',
      'https://x.example/#',
      'https://u:p@x.example',
    ],
    ...[
      'https://',
      'https://x.example/a b',
      'https:\\\\x.example',
      ' https://x.example',
      'https://x.example:99999',
    ],
  ])('ISSUER refuses the value %p', (issuer) => {
    expect(developmentFaults({ ISSUER: issuer })).toEqual([
      'ISSUER must be an http or https URL without credentials, query and fragment',
    ]);
  });
});

describe('RESOURCE_AUDIENCES', () => {
  test('RESOURCE_AUDIENCES is a list of absolute URIs, kept letter by letter', () => {
    const value = 'https://orders.example.com, urn:example:stock,api://x/';
    expect(inDevelopment({ RESOURCE_AUDIENCES: value }).resourceAudiences).toEqual([
      'https://orders.example.com',
      'urn:example:stock',
      'api://x/',
    ]);
  });

  test.each([
    'orders',
    '/orders',
    'https://x.example/#part',
    'https://x.example/a b',
    'https://',
    '//x.example',
  ])('RESOURCE_AUDIENCES refuses the value %p', (value) => {
    expect(developmentFaults({ RESOURCE_AUDIENCES: value })).toEqual([
      expect.stringMatching(/^RESOURCE_AUDIENCES must be a comma-separated list, each entry an absolute URI/),
    ]);
  });
});

describe('OAUTH_CLIENTS', () => {
  const CLIENT = { id: 'shop', name: 'The shop', redirect_uris: ['https://shop.example/callback'] };
  const faultsFor = (...clients: object[]): readonly string[] =>
    developmentFaults({ OAUTH_CLIENTS: JSON.stringify(clients) });

  test('OAUTH_CLIENTS is a list of apps, each with its redirect URIs letter by letter', () => {
    const web = {
      ...CLIENT,
      id: 'web',
      secret_sha256: 'A'.repeat(64),
      redirect_uris: ['https://web.example/?x=1', 'http://[::1]/cb', 'com.example.app:/callback'],
      post_logout_redirect_uris: ['https://web.example/bye'],
      pkce: 'optional',
    };
    expect(inDevelopment({ OAUTH_CLIENTS: JSON.stringify([CLIENT, web]) }).oauthClients).toEqual([
      {
        id: 'shop',
        name: 'The shop',
        logo: undefined,
        secretDigest: undefined,
        redirectUris: CLIENT.redirect_uris,
        postLogoutRedirectUris: [],
        pkceOptional: false,
      },
      {
        id: 'web',
        name: 'The shop',
        logo: undefined,
        secretDigest: Buffer.alloc(32, 0xaa),
        redirectUris: web.redirect_uris,
        postLogoutRedirectUris: web.post_logout_redirect_uris,
        pkceOptional: true,
      },
    ]);
  });

  test.each(['shop', '{}', '["shop"]', '[', '[null]'])('OAUTH_CLIENTS refuses the value %p', (value) => {
    expect(developmentFaults({ OAUTH_CLIENTS: value })).toEqual([
      'OAUTH_CLIENTS must be a JSON array of clients, each an object with id, name and redirect_uris',
    ]);
  });

  test.each([
    ['http://shop.example/callback'],
    ['https://shop.example/#part'],
    ['https://user@shop.example/'],
    ['https://*.shop.example/'],
    ['javascript:alert(1)'],
    ['data:text/html,x'],
    ['/callback'],
    ['https://shop.example/a b'],
  ])('OAUTH_CLIENTS refuses the redirect URI %p', (uri) => {
    expect(faultsFor({ ...CLIENT, redirect_uris: [uri] })).toEqual([
      expect.stringMatching(/^OAUTH_CLIENTS \[0\] redirect_uris must be a list/),
    ]);
  });

  test('all faults of OAUTH_CLIENTS are reported together, by the place of the client and without a value', () => {
    const faults = faultsFor(
      {
        id: 'a b',
        name: '',
        redirect_uris: [],
        redirect_uri: 'x',
        secret_sha256: 'canary',
        pkce: 'optional',
      },
      { ...CLIENT, id: 'otp-login', logo: '/no/such/file' },
      CLIENT,
      { ...CLIENT, pkce: 'optional' },
    );
    expect(faults.map((fault) => fault.replace(/^(OAUTH_CLIENTS (?:\[\d\] )?\S+).*/, '$1'))).toEqual([
      'OAUTH_CLIENTS [0] must',
      'OAUTH_CLIENTS [0] id',
      'OAUTH_CLIENTS [0] name',
      'OAUTH_CLIENTS [0] secret_sha256',
      'OAUTH_CLIENTS [0] redirect_uris',
      'OAUTH_CLIENTS [1] logo',
      'OAUTH_CLIENTS [3] pkce',
      'OAUTH_CLIENTS must',
      'OAUTH_CLIENTS must',
    ]);
    expect(faults.join()).not.toMatch(/canary|no.such|a b/);
  });

  test('OAUTH_CLIENTS needs the login page', () => {
    const OAUTH_CLIENTS = JSON.stringify([CLIENT]);
    expect(developmentFaults({ OAUTH_CLIENTS, LOGIN_PAGE: 'false' })).toEqual([
      'OAUTH_CLIENTS needs LOGIN_PAGE=true: users of the clients log in there',
    ]);
  });
});

describe('PROVIDERS', () => {
  const SES: Environment = {
    PROVIDERS: 'sendwithses',
    SENDWITHSES_TEMPLATE_KEY: 'tk_canary',
    SENDWITHSES_SENT_IF: 'success=true,data.status="sent"',
    SENDWITHSES_VERIFIED_IF: 'data.verified=true',
  };

  test('PROVIDERS lists providers in order of preference, with or without spaces', () => {
    const { providers } = inDevelopment({ ...SES, PROVIDERS: 'sendwithses, startmessaging' });
    expect(providers).toEqual(['sendwithses', 'startmessaging']);
  });

  test.each([
    ',',
    'startmessaging,',
    'startmessaging,startmessaging',
    'StartMessaging',
    'ses',
    'constructor',
  ])('PROVIDERS refuses the value %p', (text) => {
    expect(developmentFaults({ ...SES, PROVIDERS: text })).toEqual([
      'PROVIDERS must be a comma-separated list, each entry startmessaging or sendwithses, none of them twice',
    ]);
  });

  test('PROVIDERS with sendwithses needs its key and its conditions, and warns that it is experimental', () => {
    expect(developmentFaults({ PROVIDERS: 'startmessaging,sendwithses' })).toEqual([
      'SENDWITHSES_TEMPLATE_KEY is required when PROVIDERS has sendwithses',
      'SENDWITHSES_SENT_IF is required when PROVIDERS has sendwithses',
      'SENDWITHSES_VERIFIED_IF is required when PROVIDERS has sendwithses',
    ]);
    const { sendWithSes, warnings } = inDevelopment({ ...SES, SENDWITHSES_SENDER_ID: 'OTPLGN' });
    expect(warnings).toContain('PROVIDERS has sendwithses, which is experimental');
    expect(sendWithSes).toEqual({
      templateKey: 'tk_canary',
      baseUrl: 'https://api.sendwithses.com',
      senderId: 'OTPLGN',
      originationNumber: undefined,
      sentIf: [
        { path: ['success'], equals: true },
        { path: ['data', 'status'], equals: 'sent' },
      ],
      verifiedIf: [{ path: ['data', 'verified'], equals: true }],
    });
  });

  test('PROVIDERS without startmessaging needs none of its settings, also in production', () => {
    const alone = { ...SES, STARTMESSAGING_API_KEY: '', STARTMESSAGING_CONTRACT: '', OTP_TTL_SECONDS: '90' };
    expect(readConfig({ ...PRODUCTION, ...alone }).startMessagingApiKey).toBeUndefined();
    expect(productionFaults({ ...alone, PROVIDERS: 'sendwithses,startmessaging' })).toEqual([
      'STARTMESSAGING_API_KEY is required',
      'STARTMESSAGING_CONTRACT is required in production',
    ]);
  });

  test('PROVIDERS without sendwithses keeps its sent codes verifiable while its settings are set', () => {
    expect(inDevelopment({ ...SES, PROVIDERS: 'startmessaging' }).sendWithSes?.templateKey).toBe('tk_canary');
    const half = { ...SES, PROVIDERS: 'startmessaging', SENDWITHSES_VERIFIED_IF: '' };
    expect(inDevelopment(half).sendWithSes).toBeUndefined();
  });

  test('providers are called by https in production', () => {
    const url = 'http://ses.internal';
    expect(productionFaults({ ...SES, SENDWITHSES_BASE_URL: url })).toEqual([
      'SENDWITHSES_BASE_URL must be https in production, except to a loopback address',
    ]);
    expect(inDevelopment({ ...SES, SENDWITHSES_BASE_URL: `${url}/` }).sendWithSes?.baseUrl).toBe(url);
  });

  test.each(['tk canary', 'tk\r\nX-Injected: 1', 'schlüssel'])(
    'SENDWITHSES_TEMPLATE_KEY refuses the value %j',
    (key) => {
      const faults = developmentFaults({ ...SES, SENDWITHSES_TEMPLATE_KEY: key });
      expect(faults).toEqual(['SENDWITHSES_TEMPLATE_KEY must be 1 to 512 visible ASCII characters']);
    },
  );

  test.each<[string, unknown]>([
    ['a=true', [{ path: ['a'], equals: true }]],
    ['a-b.c_d.0=null', [{ path: ['a-b', 'c_d', '0'], equals: null }]],
    [
      'a="x,y=\\"1\\"" , b=-1.5e3',
      [
        { path: ['a'], equals: 'x,y="1"' },
        { path: ['b'], equals: -1500 },
      ],
    ],
  ])('the conditions of sendwithses are read from %s', (text, conditions) => {
    expect(inDevelopment({ ...SES, SENDWITHSES_SENT_IF: text }).sendWithSes?.sentIf).toEqual(conditions);
  });

  test.each([
    'a',
    'a=',
    '=true',
    'a=True',
    'a==true',
    'a=sent',
    "a='sent'",
    'a={}',
    'a=[true]',
    'a=true,',
    ',a=true',
    'a=true b=true',
    'a=true;b=true',
    'a..b=true',
    '.a=true',
    'a=01',
    'a=-',
    'a="x',
    'a="\\x"',
    '__proto__=true',
    'a.constructor.name="Object"',
    'a.prototype=true',
  ])('the conditions of sendwithses refuse the text %s', (text) => {
    expect(developmentFaults({ ...SES, SENDWITHSES_VERIFIED_IF: text })).toEqual([
      expect.stringMatching(/^SENDWITHSES_VERIFIED_IF must be a comma-separated list of path=value such as /),
    ]);
  });
});

describe('StartMessaging', () => {
  test('STARTMESSAGING_BASE_URL loses the slash at its end', () => {
    const url = inDevelopment({
      STARTMESSAGING_BASE_URL: 'http://127.0.0.1:3001/api/',
    }).startMessagingBaseUrl;
    expect(url).toBe('http://127.0.0.1:3001/api');
  });

  test('the service warns about an API key of another shape, without showing the key', () => {
    const { warnings } = readConfig({ ...PRODUCTION, STARTMESSAGING_API_KEY: 'sm_test_canary' });
    expect(warnings).toEqual(['STARTMESSAGING_API_KEY does not look like sm_live_<40 hex>']);
  });

  test.each(['key with spaces', 'key\r\nX-Injected: 1', 'schlüssel'])(
    'STARTMESSAGING_API_KEY refuses the value %j',
    (key) => {
      expect(developmentFaults({ STARTMESSAGING_API_KEY: key })).toEqual([
        'STARTMESSAGING_API_KEY must be 1 to 512 visible ASCII characters',
      ]);
    },
  );

  test('the template id must be a UUID, and the app name may be in any script', () => {
    const id = '3f1d2c4b-5a69-4788-9c0d-1e2f3a4b5c6d';
    const config = inDevelopment({ STARTMESSAGING_TEMPLATE_ID: id, STARTMESSAGING_APP_NAME: 'दुकान & Co.' });
    expect(config).toMatchObject({ startMessagingTemplateId: id, startMessagingAppName: 'दुकान & Co.' });
    expect(developmentFaults({ STARTMESSAGING_TEMPLATE_ID: 'login' })).toHaveLength(1);
    expect(developmentFaults({ STARTMESSAGING_APP_NAME: 'x'.repeat(51) })).toHaveLength(1);
  });
});

describe('SECRET', () => {
  test('SECRET is a list that keeps its order', () => {
    expect(inDevelopment({ SECRET: 'one, two,three' }).secrets).toEqual(['one', 'two', 'three']);
  });

  test('SECRET refuses a secret that is listed twice or empty', () => {
    expect(developmentFaults({ SECRET: 'one,two,one' })).toEqual(['SECRET must not hold a secret twice']);
    expect(developmentFaults({ SECRET: 'one,' })).toHaveLength(1);
  });

  test('in development the service warns about a short SECRET', () => {
    expect(inDevelopment({ SECRET: 'short', SUBJECT_SECRET: 'x'.repeat(32) }).warnings).toEqual([
      'SECRET has fewer than 32 characters, which production refuses',
    ]);
  });
});

describe('who is believed', () => {
  test('TRUSTED_PROXIES are CIDRs, and a bare address is a network of one', () => {
    const { trustedProxies } = inDevelopment({ TRUSTED_PROXIES: '10.0.0.0/8, 192.0.2.7,fd00::/8,::1' });
    expect(trustedProxies).toEqual(['10.0.0.0/8', '192.0.2.7/32', 'fd00::/8', '::1/128']);
  });

  test.each([
    '10.0.0.0/33',
    '10.0.0/8',
    'fd00::/129',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    'loopback',
    'fe80::1%eth0',
    '1',
    '/8',
  ])('TRUSTED_PROXIES refuses the value %p', (text) => {
    expect(developmentFaults({ TRUSTED_PROXIES: text })).toEqual([
      'TRUSTED_PROXIES must be a comma-separated list, each entry an IP address or a CIDR',
    ]);
  });

  test('CORS_ORIGINS are exact web origins', () => {
    const { corsOrigins } = inDevelopment({ CORS_ORIGINS: 'https://app.example.com, http://localhost:5173' });
    expect(corsOrigins).toEqual(['https://app.example.com', 'http://localhost:5173']);
  });

  test.each([
    'https://app.example.com:8443',
    'http://[::1]:5173',
    'capacitor://localhost',
    'ionic://localhost',
    'tauri://localhost',
    'app://-',
    'app://.',
    'my-app://com.example.shop:80',
    'com.example.shop://localhost',
    'chrome-extension://abcdefghijklmnopabcdefghijklmnop',
  ])('CORS_ORIGINS accepts the origin %p', (text) => {
    expect(inDevelopment({ CORS_ORIGINS: text }).corsOrigins).toEqual([text]);
  });

  test.each([
    '*',
    'null',
    'file://',
    'file://localhost',
    'https://*.example.com/',
    'https://*.example.com',
    'https://*',
    'capacitor://*',
    'capacitor://',
    'capacitor://localhost/',
    'capacitor:localhost',
    'Capacitor://localhost',
    'capacitor://user@localhost',
    'capacitor://localhost?x',
    'capacitor://localhost:070',
    'https://a.example:70000',
    'a.example',
    '//a.example',
    'https://münchen.example',
    'https://a.example/',
    'https://A.example',
    'https://a.example:443',
  ])('CORS_ORIGINS refuses the value %p', (text) => {
    expect(developmentFaults({ CORS_ORIGINS: text })).toHaveLength(1);
  });

  test('EXTRA_MOBILE_SERIES are leading digits', () => {
    expect(inDevelopment({ EXTRA_MOBILE_SERIES: '67479, 62,9876543210' }).extraMobileSeries).toEqual([
      '67479',
      '62',
      '9876543210',
    ]);
    expect(inDevelopment({}).extraMobileSeries).toEqual([]);
  });

  test.each(['6', '5747', '+9167479', '67479,', '6747x', '67479000000', '67 479', '٦٧٤'])(
    'EXTRA_MOBILE_SERIES refuses the value %p',
    (text) => {
      expect(developmentFaults({ EXTRA_MOBILE_SERIES: text })).toEqual([
        expect.stringMatching(/^EXTRA_MOBILE_SERIES must be /),
      ]);
    },
  );

  test.each(['0', '-1', '3601', '75s', '1e2', '75.5', 'none'])(
    'KEEP_ALIVE_SECONDS refuses the value %p',
    (text) => {
      expect(developmentFaults({ KEEP_ALIVE_SECONDS: text })).toEqual([
        'KEEP_ALIVE_SECONDS must be a whole number from 1 to 3600',
      ]);
    },
  );

  test('INTROSPECTION_CLIENTS are id:secret, divided by the first colon', () => {
    const { introspectionClients } = inDevelopment({
      INTROSPECTION_CLIENTS: `orders:s3:cret=${RANDOM}, pay_2:${RANDOM}`,
    });
    expect(introspectionClients).toEqual([
      { id: 'orders', secret: `s3:cret=${RANDOM}` },
      { id: 'pay_2', secret: RANDOM },
    ]);
  });

  test.each([
    'orders',
    'orders:',
    `:${RANDOM}`,
    `or ders:${RANDOM}`,
    `orders:se cret${RANDOM}`,
    `orders:${RANDOM.slice(1)}`,
    `pay:${RANDOM},orders:short`,
  ])('INTROSPECTION_CLIENTS refuses the value %p', (text) => {
    expect(developmentFaults({ INTROSPECTION_CLIENTS: text })).toHaveLength(1);
  });

  test('INTROSPECTION_CLIENTS refuses a repeated client id', () => {
    expect(developmentFaults({ INTROSPECTION_CLIENTS: `a:${RANDOM},a:${RANDOM}2` })).toEqual([
      'INTROSPECTION_CLIENTS must not name an id twice',
    ]);
  });
});

describe('literal quotes', () => {
  const QUOTES = 'must not stand in quotes: they would be part of the value (docker --env-file keeps them)';

  test.each(SETTING_NAMES)('%s in double or single quotes is refused', (name) => {
    for (const quote of ['"', "'"]) {
      expect(developmentFaults({ [name]: `${quote}${RANDOM}${quote}` })).toContainEqual(`${name} ${QUOTES}`);
    }
  });

  test.each([
    ['SECRET', `${RANDOM},"${RANDOM}x"`],
    ['SECRET', ` "${RANDOM}" `],
    ['INTROSPECTION_CLIENTS', `orders:"${RANDOM}"`],
    ['ADMIN_TOKENS', `asha:'${RANDOM}'`],
    ['CORS_ORIGINS', '"https://a.example","https://b.example"'],
  ])('an entry of %s in quotes is refused: %s', (name, value) => {
    expect(developmentFaults({ [name]: value })).toEqual([`${name} ${QUOTES}`]);
  });

  test('the value of a file in quotes is refused by the name of the setting', () => {
    expect(developmentFaults({ SECRET_FILE: fileWith(`"${RANDOM}"\n`) })).toEqual([`SECRET ${QUOTES}`]);
  });

  test('quotes within a value are part of it', () => {
    const { secrets, sendWithSes } = inDevelopment({
      SECRET: `${RANDOM}"'x`,
      SENDWITHSES_TEMPLATE_KEY: 'key',
      SENDWITHSES_SENT_IF: 'data.status="sent",data.text="a, b"',
      SENDWITHSES_VERIFIED_IF: 'data.verified=true',
    });
    expect(secrets).toEqual([`${RANDOM}"'x`]);
    expect(sendWithSes).toBeDefined();
  });
});

describe('ADMIN_TOKENS', () => {
  const TOKEN = 'operator-token-0123456789-abcdefg';
  const HASH = createHash('sha256').update(TOKEN).digest('hex');
  const IS =
    'must be a comma-separated list, each entry name:sha256:hex or name:token, the name of 1 to 64 letters, digits and ' +
    '._~-, the token of 32 to 256 visible ASCII characters';

  test('ADMIN_TOKENS accepts a token or its hash, and both mean the same token', () => {
    const digest = Buffer.from(HASH, 'hex');
    expect(inDevelopment({ ADMIN_TOKENS: `ops:sha256:${HASH}, on.call_2~-:${TOKEN}` }).adminTokens).toEqual([
      { name: 'ops', digest, plain: false, weak: false },
      { name: 'on.call_2~-', digest, plain: true, weak: false },
    ]);
    expect(tokenDigest(TOKEN)).toEqual(digest);
  });

  test('ADMIN_TOKENS keeps the colons of a token', () => {
    const token = `${':'.repeat(31)}x`;
    const [found] = inDevelopment({ ADMIN_TOKENS: `ops:${token}` }).adminTokens;
    expect(found?.digest).toEqual(tokenDigest(token));
  });

  test.each([
    ['without a name', `:${TOKEN}`],
    ['without a token', 'ops:'],
    ['with a name of 65 characters', `${'o'.repeat(65)}:${TOKEN}`],
    ['with a name of two words', `o ps:${TOKEN}`],
    ['of 31 characters', `ops:${'x'.repeat(31)}`],
    ['of 257 characters', `ops:${'x'.repeat(257)}`],
    ['with a space', `ops:${TOKEN} ${TOKEN}`],
    ['in another script', `ops:${'ä'.repeat(32)}`],
    ['that is missing behind a comma', `ops:${TOKEN},`],
  ])('ADMIN_TOKENS refuses a token %s', (_, text) => {
    expect(developmentFaults({ ADMIN_TOKENS: text })).toEqual([`ADMIN_TOKENS ${IS}`]);
  });

  test('ADMIN_TOKENS accepts tokens of 32 to 256 characters', () => {
    expect(developmentFaults({ ADMIN_TOKENS: `a:${'x'.repeat(32)},b:${'y'.repeat(256)}` })).toEqual([]);
  });

  // Taken for a token, a hash that was mistyped would let everybody in who may read the configuration.
  test.each([
    ['that is too short', HASH.slice(1)],
    ['that is too long', `${HASH}0`],
    ['that is none', `${HASH.slice(1)}g`],
  ])('ADMIN_TOKENS refuses a hash %s, and does not take it for a token', (_, hash) => {
    expect(developmentFaults({ ADMIN_TOKENS: `ops:sha256:${hash}` })).toEqual([`ADMIN_TOKENS ${IS}`]);
  });

  test('ADMIN_TOKENS reads a hash in capitals, or refuses it', () => {
    const variables = { ADMIN_TOKENS: `ops:sha256:${HASH.toUpperCase()}` };
    const refused = developmentFaults(variables).length > 0;
    expect(refused || !inDevelopment(variables).adminTokens[0]?.plain).toBe(true);
  });

  test('ADMIN_TOKENS refuses a name that is listed twice', () => {
    expect(developmentFaults({ ADMIN_TOKENS: `ops:${TOKEN},ops:sha256:${HASH}` })).toEqual([
      'ADMIN_TOKENS must not name a client twice',
    ]);
  });

  test('in production ADMIN_TOKENS must be hashes or come from a file', () => {
    const fault =
      'ADMIN_TOKENS must be hashed (name:sha256:hex) in production, or come from ADMIN_TOKENS_FILE';
    const plain = `a:sha256:${HASH},b:${TOKEN}`;
    expect(productionFaults({ ADMIN_TOKENS: plain })).toEqual([fault]);
    expect(productionFaults({ ADMIN_TOKENS: plain, ADMIN_TOKENS_FILE: '' })).toEqual([fault]);
    expect(productionFaults({ ADMIN_TOKENS: `a:sha256:${HASH}` })).toEqual([]);
    const { adminTokens } = readConfig({ ...PRODUCTION, ADMIN_TOKENS_FILE: fileWith(`${plain}\n`) });
    expect(adminTokens.map(({ name }) => name)).toEqual(['a', 'b']);
  });

  test('in production ADMIN_TOKENS refuses a token that is a shorter text repeated', () => {
    const ADMIN_TOKENS_FILE = fileWith(`asha:${'a-token-'.repeat(4)}`);
    expect(productionFaults({ ADMIN_TOKENS_FILE })).toEqual([`ADMIN_TOKENS ${WEAK}`]);
    expect(developmentFaults({ ADMIN_TOKENS_FILE })).toEqual([]);
  });
});

describe('MAGIC_NUMBERS', () => {
  test('MAGIC_NUMBERS is refused in production, because their code is published', () => {
    expect(productionFaults({ MAGIC_NUMBERS: 'true' })).toEqual([
      'MAGIC_NUMBERS must not be true in production',
    ]);
    expect(productionFaults({ MAGIC_NUMBERS: 'false' })).toEqual([]);
  });
});

describe('TEST_NUMBERS', () => {
  const DAY_MS = 86_400_000;
  const IS =
    'must be a comma-separated list, each entry number:code:date or number:code, the number +910 and nine digits, the ' +
    'code 4 to 8 digits, the date as 2027-01-31';
  const inDays = (days: number): string => new Date(Date.now() + days * DAY_MS).toISOString().slice(0, 10);

  test('TEST_NUMBERS have a code, and may have an expiry date', () => {
    const { testNumbers } = inDevelopment({
      TEST_NUMBERS: '+910000000001:123456, +910999999999:000000:2096-02-29',
    });
    expect(testNumbers).toEqual([
      { phoneNumber: '+910000000001', code: '123456', expiresAt: undefined },
      { phoneNumber: '+910999999999', code: '000000', expiresAt: new Date('2096-02-29T00:00:00.000Z') },
    ]);
  });

  test.each([
    ...['+919876543210:123456', '+91098765432:123456', '+9109876543210:123456', '910000000001:123456'],
    ...['+910000000001', '+910000000001:', '+910000000001:123', '+910000000001:123456789'],
    ...[
      '+910000000001:12345a',
      '+910000000001:१२३४५६',
      '+91000000000१:123456',
      ' :123456',
      '+910000000001:123456,',
    ],
    ...['+910000000001:123456:', '+910000000001:123456:2096-2-1', '+910000000001:123456:tomorrow'],
    ...[
      '+910000000001:123456:2096-02-30',
      '+910000000001:123456:2097-02-29',
      '+910000000001:123456:2096-13-01',
    ],
    ...[
      '+910000000001:123456:2096-00-10',
      '+910000000001:123456:2096-01-00',
      '+910000000001:123456:2096-01-32',
    ],
    ...['+910000000001:123456:2096-01-01T00:00:00Z', '+910000000001:123456:2096-01-01:x'],
  ])('TEST_NUMBERS refuses the value %p', (text) => {
    expect(developmentFaults({ TEST_NUMBERS: text })).toEqual([`TEST_NUMBERS ${IS}`]);
  });

  test('TEST_NUMBERS refuses a number that is listed twice', () => {
    expect(developmentFaults({ TEST_NUMBERS: '+910000000001:123456,+910000000001:654321' })).toEqual([
      'TEST_NUMBERS must not name a number twice',
    ]);
    expect(developmentFaults({ TEST_NUMBERS: '+910000000001:123456,+910000000002:123456' })).toEqual([]);
  });

  test('TEST_NUMBERS must have codes of 6 digits, whatever OTP_LENGTH is', () => {
    const fault = 'TEST_NUMBERS must have codes of 6 digits';
    const numbers = '+910000000001:123456,+910000000002:12345';
    expect(developmentFaults({ TEST_NUMBERS: numbers })).toEqual([fault]);
    expect(developmentFaults({ TEST_NUMBERS: '+910000000001:123456', OTP_LENGTH: '4' })).toEqual([]);
    expect(developmentFaults({ TEST_NUMBERS: '+910000000001:1234', OTP_LENGTH: '4' })).toEqual([fault]);
  });

  test('in production TEST_NUMBERS must expire within 90 days, elsewhere they need not', () => {
    const fault = 'TEST_NUMBERS must expire within 90 days in production';
    for (const date of ['', `:${inDays(91)}`, ':2999-12-31']) {
      expect(productionFaults({ TEST_NUMBERS: `+910000000001:123456${date}` })).toEqual([fault]);
      expect(inDevelopment({ TEST_NUMBERS: `+910000000001:123456${date}` }).testNumbers).toHaveLength(1);
    }
    const mixed = `+910000000001:123456:${inDays(30)},+910000000002:123456`;
    expect(productionFaults({ TEST_NUMBERS: mixed })).toEqual([fault]);
    expect(productionFaults({ TEST_NUMBERS: `+910000000001:123456:${inDays(90)}` })).toEqual([]);
  });

  test('in production the service warns about TEST_NUMBERS', () => {
    const { warnings } = readConfig({
      ...PRODUCTION,
      TEST_NUMBERS: `+910000000001:123456:${inDays(30)}`,
    });
    expect(warnings).toEqual(['TEST_NUMBERS allows a login to every person with a code of the list']);
    expect(inDevelopment({ TEST_NUMBERS: '+910000000001:123456' }).warnings.join()).not.toContain('TEST_');
  });

  test('the service starts although some TEST_NUMBERS have expired', () => {
    for (const date of [inDays(-1), inDays(0), '2020-01-31']) {
      const variables = { TEST_NUMBERS: `+910000000001:123456:${date}` };
      const warning = 'TEST_NUMBERS holds a number that has expired';
      expect(inDevelopment(variables).warnings).toContain(warning);
      const production = readConfig({ ...PRODUCTION, ...variables });
      expect(production.warnings).toContain(warning);
      expect(production.testCode('+910000000001')).toBeUndefined();
    }
  });

  test('a test number has its code until it expires, and no other number has one', () => {
    const config = inDevelopment({
      TEST_NUMBERS: `+910000000001:111111:${inDays(1)},+910000000002:222222`,
    });
    const codes = (): unknown[] =>
      ['+910000000001', '+910000000002', '+910000000003', '+919876543210'].map((number) =>
        config.testCode(number),
      );
    expect(codes()).toEqual(['111111', '222222', undefined, undefined]);
    jest.useFakeTimers({ now: Date.parse(inDays(1)) });
    try {
      expect(codes()).toEqual([undefined, '222222', undefined, undefined]);
    } finally {
      jest.useRealTimers();
    }
  });
});

describe('switches', () => {
  test.each(['TRUE', '1', 'yes', 'on', 'constructor'])('a switch setting refuses the text %p', (text) => {
    expect(developmentFaults({ SWAGGER: text })).toEqual(['SWAGGER must be true or false']);
  });

  test('a switch turns on a feature that production leaves off, and off one that development leaves on', () => {
    expect(readConfig({ ...PRODUCTION, SWAGGER: 'true' }).swagger).toBe(true);
    expect(inDevelopment({ SWAGGER: 'false' }).swagger).toBe(false);
    expect(inDevelopment({ TOKEN_PHONE_NUMBER: 'true' }).tokenPhoneNumber).toBe(true);
  });
});

test('a Config that reaches a log shows no value', () => {
  const config = readConfig(PRODUCTION);
  expect(JSON.stringify({ config })).toBe('{"config":"[Config]"}');
  expect(inspect({ config })).toBe('{ config: [Config] }');
});

describe('the webhook of the alerts', () => {
  const secretOf = (bytes: number): string => `whsec_${Buffer.alloc(bytes, 7).toString('base64')}`;
  const GOOD = { ALERT_WEBHOOK_URL: 'https://hooks.example/x?token=1', ALERT_WEBHOOK_SECRET: secretOf(32) };

  test('the alert webhook has a URL, kept letter by letter, and secrets as Standard Webhooks writes them', () => {
    const { alertWebhookUrl, alertWebhookSecrets } = inDevelopment({
      ...GOOD,
      ALERT_WEBHOOK_SECRET: `${secretOf(24)}, ${secretOf(64)}`,
    });
    expect(alertWebhookUrl).toBe(GOOD.ALERT_WEBHOOK_URL);
    expect(alertWebhookSecrets).toEqual([Buffer.alloc(24, 7), Buffer.alloc(64, 7)]);
    const fromFile = {
      ALERT_WEBHOOK_SECRET: undefined,
      ALERT_WEBHOOK_SECRET_FILE: fileWith(`${secretOf(32)}\n`),
    };
    expect(inDevelopment({ ...GOOD, ...fromFile }).alertWebhookSecrets).toEqual([Buffer.alloc(32, 7)]);
  });

  test.each([
    secretOf(23),
    secretOf(65),
    secretOf(32).slice('whsec_'.length),
    secretOf(32).replace('=', ''),
    secretOf(32).replace('B', '-'),
    `${secretOf(32)}x`,
    `${secretOf(32)},`,
    'whsec_',
    'x'.repeat(44),
  ])('ALERT_WEBHOOK_SECRET refuses the value %p', (secret) => {
    expect(productionFaults({ ...GOOD, ALERT_WEBHOOK_SECRET: secret })).toEqual([
      'ALERT_WEBHOOK_SECRET must be a comma-separated list, each entry whsec_ and the base64 of 24 to 64 bytes',
    ]);
  });

  test.each([
    'hooks.example',
    'ftp://hooks.example/',
    'file:///etc/passwd',
    'https://user:password@hooks.example/',
    'https://user@hooks.example/',
    'https://hooks.example/#x',
    'https://hooks.example/ x',
    'https://hooks.example\\@evil.example/',
    'https://',
  ])('ALERT_WEBHOOK_URL refuses the value %p', (url) => {
    expect(developmentFaults({ ...GOOD, ALERT_WEBHOOK_URL: url })).toEqual([
      'ALERT_WEBHOOK_URL must be an http or https URL without credentials and fragment',
    ]);
  });

  test('in production ALERT_WEBHOOK_URL must be https, except to a loopback address', () => {
    expect(productionFaults(GOOD)).toEqual([]);
    expect(productionFaults({ ...GOOD, ALERT_WEBHOOK_URL: 'http://127.0.0.1:8080/' })).toEqual([]);
    const plain = { ...GOOD, ALERT_WEBHOOK_URL: 'http://hooks.example/' };
    expect(developmentFaults(plain)).toEqual([]);
    expect(productionFaults(plain)).toEqual([
      'ALERT_WEBHOOK_URL must be https in production, except to a loopback address',
    ]);
  });

  test('ALERT_WEBHOOK_URL is refused without a secret, because its alerts could be forged', () => {
    expect(developmentFaults({ ALERT_WEBHOOK_URL: GOOD.ALERT_WEBHOOK_URL })).toEqual([
      'ALERT_WEBHOOK_SECRET is required with ALERT_WEBHOOK_URL',
    ]);
    expect(developmentFaults({ ALERT_WEBHOOK_SECRET: GOOD.ALERT_WEBHOOK_SECRET })).toEqual([]);
  });
});
