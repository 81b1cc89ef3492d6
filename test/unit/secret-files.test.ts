import { rmSync } from 'node:fs';
import { ConfigError, SECRETS, tokenDigest, type SecretName } from '../../src/config/config';
import { Keyring } from '../../src/crypto/derived-keys';
import { SecretFiles, type PollResult } from '../../src/config/secret-files';
import { Mounted } from '../support/mounted';

const CANARY = 'hunter2-canary';
const secret = (name: string): string => `${name}-0123456789-0123456789-0123456789`;
const webhookSecret = (byte: number): string => `whsec_${Buffer.alloc(32, byte).toString('base64')}`;

/** Of every secret, what it is at the start and what becomes of it. */
const BEFORE: Record<SecretName, string> = {
  REDIS_URL: 'redis://login:before@redis.internal:6379/0',
  STARTMESSAGING_API_KEY: `sm_live_${'0'.repeat(40)}`,
  SECRET: secret('before'),
  SUBJECT_SECRET: secret('subject'),
  INTROSPECTION_CLIENTS: 'api:before-0123456789-abcdefghijklmno',
  ADMIN_TOKENS: `ops:${secret('before')}`,
  TEST_NUMBERS: `+910000000001:111111:${soon()}`,
  SENDWITHSES_TEMPLATE_KEY: 'template-key-before',
  ALERT_WEBHOOK_URL: 'https://alerts.example.com/before',
  ALERT_WEBHOOK_SECRET: webhookSecret(1),
};
const AFTER: Record<Exclude<SecretName, 'SUBJECT_SECRET'>, string> = {
  REDIS_URL: 'redis://login:after@redis.internal:6379/0',
  STARTMESSAGING_API_KEY: `sm_live_${'1'.repeat(40)}`,
  SECRET: `${secret('before')},${secret('after')}`,
  INTROSPECTION_CLIENTS: 'api:before-0123456789-abcdefghijklmno,api2:after-0123456789-abcdefghijklmnop',
  ADMIN_TOKENS: `ops:${secret('before')},ops2:${secret('after')}`,
  TEST_NUMBERS: `+910000000001:222222:${soon()}`,
  SENDWITHSES_TEMPLATE_KEY: 'template-key-after',
  ALERT_WEBHOOK_URL: 'https://alerts.example.com/after',
  ALERT_WEBHOOK_SECRET: `${webhookSecret(1)},${webhookSecret(2)}`,
};

function soon(): string {
  return new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, 10);
}

let mounted: Mounted;
let keys: Mounted;
let files: SecretFiles;
beforeEach(() => {
  mounted = new Mounted();
  keys = new Mounted();
  mounted.put({ ...BEFORE, LIMIT_IP: '1/1' });
  files = new SecretFiles(environment());
});
afterEach(() => {
  mounted.remove();
  keys.remove();
});

/** Production, with every secret from a file, and one setting that is none. */
function environment(): Record<string, string> {
  return {
    NODE_ENV: 'production',
    ISSUER: 'https://login.example.com',
    STARTMESSAGING_CONTRACT: 'caller',
    BUDGET_PAISE_PER_DAY: '100000',
    SENDWITHSES_SENT_IF: 'success=true',
    SENDWITHSES_VERIFIED_IF: 'data.verified=true',
    JWT_KEYS_DIR: keys.folder,
    LIMIT_IP_FILE: mounted.path('LIMIT_IP'),
    ...Object.fromEntries(Object.keys(SECRETS).map((name) => [`${name}_FILE`, mounted.path(name)])),
  };
}

/** What the second look says of a change. */
function settle(): PollResult {
  expect(files.poll()).toEqual({ state: 'changing' });
  return files.poll();
}
const inUse = (): Record<string, unknown> =>
  Object.fromEntries(Object.values(SECRETS).map((field) => [field, files.config[field]]));

describe('a secret of a file', () => {
  test.each(Object.entries(AFTER))('a new secret in the file of %s is taken over', (name, text) => {
    const before = inUse();
    mounted.patch({ [name]: text });
    expect(settle()).toEqual({ state: 'taken', names: [name], warnings: [] });
    const fresh = new SecretFiles(environment());
    expect(inUse()).toEqual(
      Object.fromEntries(Object.values(SECRETS).map((field) => [field, fresh.config[field]])),
    );
    expect(inUse()).not.toEqual(before);
    expect(files.poll()).toEqual({ state: 'same' });
  });

  test('new secrets of several files are taken over at once, and listeners are called once', () => {
    const seen: unknown[] = [];
    files.config.onSecrets(() => seen.push(inUse()));
    mounted.patch(AFTER);
    const poll = settle();
    expect([poll.state, 'names' in poll && [...poll.names].sort()]).toEqual([
      'taken',
      Object.keys(AFTER).sort(),
    ]);
    expect(seen).toEqual([inUse()]);
    expect(files.config.redisUrl).toBe(AFTER.REDIS_URL);
    expect(files.config.startMessagingApiKey).toBe(AFTER.STARTMESSAGING_API_KEY);
    expect(files.config.adminTokens[1]?.digest).toEqual(tokenDigest(secret('after')));
    expect(files.config.testCode('+910000000001')).toBe('222222');
  });

  test('a secret stays while its file is mounted anew with the same content or one newline more', () => {
    const before = inUse();
    mounted.patch({ SECRET: `${BEFORE.SECRET}\n` });
    for (let looks = 0; looks < 3; looks++) expect(files.poll()).toEqual({ state: 'same' });
    expect(inUse()).toEqual(before);
  });

  test('a half-written secret is not taken over, because two looks in a row must find the same', () => {
    mounted.patch({ SECRET: secret('half') });
    expect(files.poll()).toEqual({ state: 'changing' });
    mounted.patch({ SECRET: `${secret('half')}-and-the-rest` });
    expect(files.poll()).toEqual({ state: 'changing' });
    expect(files.config.secrets).toEqual([BEFORE.SECRET]);
    expect(files.poll()).toMatchObject({ state: 'taken' });
    expect(files.config.secrets).toEqual([`${secret('half')}-and-the-rest`]);
  });

  test('a new secret is warned about once, as at the start', () => {
    mounted.patch({ STARTMESSAGING_API_KEY: CANARY });
    const warnings = ['STARTMESSAGING_API_KEY does not look like sm_live_<40 hex>'];
    expect(settle()).toEqual({ state: 'taken', names: ['STARTMESSAGING_API_KEY'], warnings });
    mounted.patch({ STARTMESSAGING_API_KEY: `${CANARY}-2` });
    expect(settle()).toMatchObject({ state: 'taken', warnings: [] });
  });

  test('keys that are derived from a secret follow its new value', () => {
    const keyring = new Keyring(files.config, 'code');
    const { id } = keyring.current;
    mounted.patch({ SECRET: `${secret('after')},${BEFORE.SECRET}` });
    settle();
    expect(keyring.current.id).not.toBe(id);
    expect(keyring.find(id)).toBeDefined();
    expect(keyring.ids).toEqual([keyring.current.id, id]);
    mounted.patch({ SECRET: secret('after') });
    settle();
    expect(keyring.find(id)).toBeUndefined();
  });
});

describe('what was in use stays, as a whole, and the reason is told without a value', () => {
  const others = { ADMIN_TOKENS: AFTER.ADMIN_TOKENS };

  test.each([
    ['REDIS_URL', CANARY, /^REDIS_URL must be redis:/],
    ['STARTMESSAGING_API_KEY', `${CANARY} ${CANARY}`, /^STARTMESSAGING_API_KEY must be/],
    ['SECRET', CANARY, /^SECRET must have 32 characters or more in production$/],
    ['SECRET', `${secret(CANARY)},${secret(CANARY)}`, /^SECRET must not hold a secret twice$/],
    ['INTROSPECTION_CLIENTS', CANARY, /^INTROSPECTION_CLIENTS must be/],
    ['ADMIN_TOKENS', `ops:${CANARY}`, /^ADMIN_TOKENS must be/],
    ['TEST_NUMBERS', CANARY, /^TEST_NUMBERS must be/],
    ['SENDWITHSES_TEMPLATE_KEY', `${CANARY} ${CANARY}`, /^SENDWITHSES_TEMPLATE_KEY must be/],
    ['ALERT_WEBHOOK_URL', `http://${CANARY}/`, /^ALERT_WEBHOOK_URL must be https/],
    ['ALERT_WEBHOOK_SECRET', CANARY, /^ALERT_WEBHOOK_SECRET must be/],
    // A change that a start would take, and a running service cannot.
    ['SUBJECT_SECRET', secret(CANARY), /^SUBJECT_SECRET has changed, .* restore the old value$/],
    ['REDIS_URL', 'redis://login:before@hunter2-canary:6379/0', /^REDIS_URL names another Redis/],
    ['REDIS_URL', 'rediss://login:before@redis.internal:6379/0', /^REDIS_URL names another Redis/],
    ['REDIS_URL', 'redis://login:before@redis.internal:6379/1', /^REDIS_URL names another Redis/],
  ] as const)(
    'all secrets stay when %s is replaced by %j, and the reason is logged without a value',
    (name, text, reason) => {
      const before = inUse();
      mounted.patch({ ...others, [name]: text });
      const poll = settle();
      expect(poll).toEqual({ state: 'refused', faults: [expect.stringMatching(reason)] });
      expect(JSON.stringify(poll)).not.toContain(CANARY);
      expect(inUse()).toEqual(before);
      // It goes on being refused, until it is mended: then the rest counts, too.
      expect(files.poll()).toEqual(poll);
      mounted.patch({ ...BEFORE, INTROSPECTION_CLIENTS: AFTER.INTROSPECTION_CLIENTS });
      expect(settle()).toMatchObject({ state: 'taken', names: ['INTROSPECTION_CLIENTS'] });
    },
  );

  test.each(Object.keys(SECRETS))('all secrets stay when the file of %s is emptied', (name) => {
    const before = inUse();
    mounted.patch({ ...others, [name]: '\n' });
    const poll = settle();
    expect(poll).toMatchObject({ state: 'refused' });
    expect(JSON.stringify(poll)).toContain(name);
    expect(inUse()).toEqual(before);
  });

  test.each(Object.keys(SECRETS))('all secrets stay when the file of %s is gone or unreadable', (name) => {
    const before = inUse();
    mounted.patch(others);
    settle();
    rmSync(mounted.path(name));
    const refused = { state: 'refused', faults: [`${name}_FILE must name a readable file`] };
    expect(settle()).toEqual(refused);
    expect({ ...inUse(), adminTokens: undefined }).toEqual({ ...before, adminTokens: undefined });
    expect(files.poll()).toEqual(refused);
  });

  test('a secret that comes back as it was is no change', () => {
    mounted.patch({ SECRET: 'short' });
    expect(settle()).toMatchObject({ state: 'refused' });
    mounted.patch({ SECRET: BEFORE.SECRET });
    expect(settle()).toEqual({ state: 'same' });
  });

  test('all faults of the secret files are reported', () => {
    mounted.patch({ SECRET: 'short', INTROSPECTION_CLIENTS: '', SUBJECT_SECRET: secret('other') });
    const poll = settle();
    // Those of the reader first: what it refuses can be compared with nothing.
    expect(poll).toEqual({
      state: 'refused',
      faults: ['SECRET must have 32 characters or more in production'],
    });
    mounted.patch({ SECRET: BEFORE.SECRET });
    expect(settle()).toEqual({
      state: 'refused',
      faults: [
        'INTROSPECTION_CLIENTS_FILE has become empty: restart the service to unset INTROSPECTION_CLIENTS',
        expect.stringMatching(/^SUBJECT_SECRET has changed/),
      ],
    });
  });
});

test('a missing folder of signing keys does not pass for a good set', () => {
  keys.remove();
  mounted.patch({ SECRET: AFTER.SECRET });
  expect(settle()).toEqual({ state: 'refused', faults: ['JWT_KEYS_DIR must be a readable folder'] });
});

test('a first operator in the file needs a restart, because /admin is not there yet', () => {
  mounted.patch({ ADMIN_TOKENS: '', INTROSPECTION_CLIENTS: '', TEST_NUMBERS: '' });
  files = new SecretFiles(environment());
  mounted.patch({ ADMIN_TOKENS: AFTER.ADMIN_TOKENS });
  expect(settle()).toEqual({ state: 'refused', faults: [expect.stringMatching(/^ADMIN_TOKENS was empty/)] });
  mounted.patch({ ADMIN_TOKENS: '', INTROSPECTION_CLIENTS: AFTER.INTROSPECTION_CLIENTS });
  expect(settle()).toMatchObject({ state: 'taken', names: ['INTROSPECTION_CLIENTS'] });
});

test('a setting that is no secret stays as it was at the start', () => {
  mounted.patch({ LIMIT_IP: '9/9', SECRET: AFTER.SECRET });
  expect(settle()).toMatchObject({ state: 'taken', names: ['SECRET'] });
  expect(files.config.limitIp).toEqual([{ count: 1, seconds: 1 }]);
  mounted.patch({ LIMIT_IP: 'nonsense' });
  expect(files.poll()).toEqual({ state: 'same' });
  mounted.patch({ SECRET: BEFORE.SECRET });
  expect(settle()).toMatchObject({ state: 'taken' });
});

test('secrets that were generated or come from variables stay beside one from a file', () => {
  files = new SecretFiles({
    STARTMESSAGING_API_KEY_FILE: mounted.path('STARTMESSAGING_API_KEY'),
    INTROSPECTION_CLIENTS: BEFORE.INTROSPECTION_CLIENTS,
  });
  expect(files.names).toEqual(['STARTMESSAGING_API_KEY']);
  const { secrets, subjectSecret, introspectionClients } = files.config;
  mounted.patch({ STARTMESSAGING_API_KEY: AFTER.STARTMESSAGING_API_KEY });
  expect(settle()).toMatchObject({ state: 'taken', names: ['STARTMESSAGING_API_KEY'] });
  expect(files.config).toMatchObject({
    startMessagingApiKey: AFTER.STARTMESSAGING_API_KEY,
    secrets,
    subjectSecret,
    introspectionClients,
  });
});

test('the service looks at no file where no secret comes from one', () => {
  files = new SecretFiles({ STARTMESSAGING_API_KEY: 'k', PORT_FILE: '' });
  expect([files.names, files.poll()]).toEqual([[], { state: 'same' }]);
});

test('secrets change only when a whole set is taken over', () => {
  expect(Object.isFrozen(files.config)).toBe(true);
  expect(() => Object.assign(files.config, { secrets: ['x'] })).toThrow(TypeError);
});

test('a start with a missing secret file is refused', () => {
  rmSync(mounted.path('SECRET'));
  const start = (): SecretFiles => new SecretFiles(environment());
  expect(start).toThrow(ConfigError);
  expect(start).toThrow('SECRET_FILE must name a readable file');
});
