import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { calculateJwkThumbprint, exportJWK } from 'jose';
import { readConfig } from '../../src/config/read-config';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { SigningKeys } from '../../src/tokens/signing-keys';

let folder: string;
let lines: string[];
let made: SigningKeys[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  lines = [];
  made = [];
});
afterEach(() => {
  for (const keys of made) keys.onModuleDestroy();
  rmSync(folder, { recursive: true });
});

function signingKeys(keysFolder: string | undefined = folder): SigningKeys {
  const config = readConfig({
    NODE_ENV: 'test',
    STARTMESSAGING_API_KEY: 'sm_live_x',
    JWT_KEYS_DIR: keysFolder,
  });
  const logger = new Logger('trace', { write: (line) => lines.push(line) });
  const keys = new SigningKeys(config, logger, new Metrics());
  made.push(keys);
  return keys;
}

const p256 = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const pem = (key: KeyObject, type: 'pkcs8' | 'sec1' = 'pkcs8'): string =>
  key.export({ format: 'pem', type: type }).toString();

function put(name: string, content: string | Buffer = pem(p256())): void {
  writeFileSync(join(folder, name), content);
}

/** The message of the refusal. */
function refusal(): string {
  try {
    signingKeys();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('The folder was not refused');
}

describe('a folder of keys', () => {
  test('a folder of signing keys names each key by its file, and publishes all of them in the order of activation', () => {
    put('20260301T0000Z-c.pem');
    put('20260101T0000Z-z.pem');
    put('20991231T2359Z-future.pem');
    put('20260101T0000Z-a.pem');
    const { keys } = signingKeys().jwks();
    expect(keys.map(({ kid }) => kid)).toEqual([
      '20260101T0000Z-a',
      '20260101T0000Z-z',
      '20260301T0000Z-c',
      '20991231T2359Z-future',
    ]);
  });

  test('a folder of signing keys signs with the newest key whose time has come, to the minute', () => {
    put('20260101T0000Z-old.pem');
    put('20261120T1000Z-new.pem');
    const keys = signingKeys();
    const at = (time: string): string => keys.current(Date.parse(time)).kid;
    expect(at('2026-01-01T00:00:00Z')).toBe('20260101T0000Z-old');
    expect(at('2026-11-20T09:59:59.999Z')).toBe('20260101T0000Z-old');
    expect(at('2026-11-20T10:00:00Z')).toBe('20261120T1000Z-new');
    expect(at('2036-11-20T10:00:00Z')).toBe('20261120T1000Z-new');
  });

  test('a folder of signing keys signs by the present time unless another time is given', () => {
    put('20200101T0000Z-old.pem');
    put('20990101T0000Z-new.pem');
    expect(signingKeys().current().kid).toBe('20200101T0000Z-old');
  });

  test('a folder of signing keys signs with its first key while all are still to come', () => {
    put('20990102T0000Z-second.pem');
    put('20990101T0000Z-first.pem');
    expect(signingKeys().current(Date.parse('2026-01-01T00:00:00Z')).kid).toBe('20990101T0000Z-first');
  });

  test('a folder of signing keys is the same to two replicas, keys of one minute included', () => {
    for (const name of ['b', 'c', 'a', 'B', '_']) put(`20260101T0000Z-${name}.pem`);
    expect(signingKeys().current().kid).toBe(signingKeys().current().kid);
    expect(signingKeys().current().kid).toBe('20260101T0000Z-c');
  });

  test('a signing key is found by its kid, a future one too, and no other value finds one', () => {
    put('20260101T0000Z-a.pem');
    put('20990101T0000Z-b.pem');
    const keys = signingKeys();
    expect(keys.find('20260101T0000Z-a')?.kid).toBe('20260101T0000Z-a');
    expect(keys.find('20990101T0000Z-b')?.kid).toBe('20990101T0000Z-b');
    const others = ['', '20260101T0000Z-a.pem', '20260101t0000z-a', 'constructor', undefined, null, 0, {}];
    for (const kid of [...others, ['20260101T0000Z-a']]) expect(keys.find(kid)).toBeUndefined();
  });

  test('a signing key may be in PKCS#8 or SEC1, and is paired with its public key', () => {
    const [one, two] = [p256(), p256()];
    put('20260101T0000Z-one.pem', pem(one));
    put('20260102T0000Z-two.pem', pem(two, 'sec1'));
    const keys = signingKeys();
    for (const [kid, key] of [
      ['20260101T0000Z-one', one],
      ['20260102T0000Z-two', two],
    ] as const) {
      expect(keys.find(kid)?.publicKey.equals(createPublicKey(key))).toBe(true);
      expect(keys.find(kid)?.privateKey.equals(key)).toBe(true);
    }
  });

  test('a folder of signing keys leaves out files that do not end in .pem or begin with a dot', () => {
    put('20260101T0000Z-a.pem');
    put('README.md', 'not a key');
    put('20260101T0000Z-b.pem.bak', 'not a key');
    put('20260101T0000Z-b.pub', 'not a key');
    put('..20260101T0000Z-b.pem', 'not a key');
    put('.20260101T0000Z-b.pem', 'not a key');
    mkdirSync(join(folder, '..2026_01_01_00_00_00.123456789'));
    const { keys } = signingKeys().jwks();
    expect(keys.map(({ kid }) => kid)).toEqual(['20260101T0000Z-a']);
  });

  test('a folder of signing keys may be a secret that Kubernetes mounts with links into ..data', () => {
    mkdirSync(join(folder, '..2026_01_01'));
    writeFileSync(join(folder, '..2026_01_01', '20260101T0000Z-a.pem'), pem(p256()));
    symlinkSync('..2026_01_01', join(folder, '..data'));
    symlinkSync(join('..data', '20260101T0000Z-a.pem'), join(folder, '20260101T0000Z-a.pem'));
    const { keys } = signingKeys().jwks();
    expect(keys.map(({ kid }) => kid)).toEqual(['20260101T0000Z-a']);
  });

  test('a folder of signing keys causes no warning in the log', () => {
    put('20260101T0000Z-a.pem');
    signingKeys();
    expect(lines).toEqual([]);
  });
});

describe('a folder is refused', () => {
  test.each([
    [
      'another curve',
      () => pem(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey),
      'neither a P-256 key nor an RSA key of 2048 bits or more',
    ],
    [
      'the curve of Bitcoin',
      () => pem(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey),
      'neither a P-256 key nor an RSA key of 2048 bits or more',
    ],
    [
      'RSA',
      () => pem(generateKeyPairSync('rsa', { modulusLength: 1_024 }).privateKey),
      'neither a P-256 key nor an RSA key of 2048 bits or more',
    ],
    [
      'Ed25519',
      () => pem(generateKeyPairSync('ed25519').privateKey),
      'neither a P-256 key nor an RSA key of 2048 bits or more',
    ],
    [
      'a public key',
      () => createPublicKey(p256()).export({ format: 'pem', type: 'spki' }).toString(),
      'not a readable PEM private key',
    ],
    [
      'a key under a pass phrase',
      () =>
        p256().export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'x' }).toString(),
      'not a readable PEM private key',
    ],
    ['garbage', () => 'hunter2-garbage', 'not a readable PEM private key'],
    [
      'a broken PEM',
      () => pem(p256()).replace(/\n[^\n]{10}/, '\nhunter2!!!'),
      'not a readable PEM private key',
    ],
    ['nothing', () => '', 'not a readable PEM private key'],
  ])(
    'a folder with a file that holds %s is refused by the name of the file, without its content',
    (_, content, reason) => {
      put('20260101T0000Z-good.pem');
      const text = content();
      put('20260102T0000Z-bad.pem', text);
      const message = refusal();
      expect(message).toContain('20260102T0000Z-bad.pem');
      expect(message).toContain('JWT_KEYS_DIR');
      expect(message).toContain(reason);
      expect(message).not.toContain('hunter2');
      for (const line of text.split('\n').filter((each) => each.length > 20))
        expect(message).not.toContain(line);
    },
  );

  test('a folder is refused when it holds a folder that is named like a key', () => {
    mkdirSync(join(folder, '20260101T0000Z-a.pem'));
    expect(refusal()).toContain('20260101T0000Z-a.pem is not a readable PEM private key');
  });

  test('a folder without any signing key is refused', () => {
    expect(refusal()).toContain('JWT_KEYS_DIR');
    put('README.md', 'x');
    put('..data.pem', 'x');
    expect(refusal()).toContain('JWT_KEYS_DIR');
  });

  test.each([
    'key.pem',
    '2026-01-01T00:00Z-a.pem',
    '20260101-a.pem',
    '20260101T0000-a.pem',
    '20260101T000000Z-a.pem',
    'x20260101T0000Z-a.pem',
    '20260101T0000Z.pem',
    '20260101T0000Z-.pem',
    '20260101T0000Z-a b.pem',
    '20260101T0000Z-ä.pem',
  ])(
    'a key file with the name %s is refused, because it says no time or holds more than a kid may',
    (name) => {
      put(name);
      expect(refusal()).toContain(name);
    },
  );

  test.each([
    '20261301T0000Z',
    '20260132T0000Z',
    '20260101T2500Z',
    '20260101T0060Z',
    '20260230T1000Z',
    '20260431T1000Z',
  ])('a key file for the time %s is refused, because that time never comes', (time) => {
    put(`${time}-a.pem`);
    expect(refusal()).toContain(`${time}-a.pem`);
  });
});

describe('a folder that changes', () => {
  const kidsOf = (keys: SigningKeys): (string | undefined)[] => keys.jwks().keys.map(({ kid }) => kid);

  const OTHER_TIMERS = [
    'Date',
    'setTimeout',
    'setImmediate',
    'nextTick',
    'queueMicrotask',
    'performance',
  ] as const;
  beforeEach(() => {
    jest.useFakeTimers({ doNotFake: [...OTHER_TIMERS] });
  });
  afterEach(() => {
    jest.useRealTimers();
  });
  /** The folder is read every two seconds, and a change counts after two reads. */
  const look = (): void => {
    jest.advanceTimersByTime(4_000);
  };

  test('a new signing key is published after two reads that find it and signs when its time has come, and a removed key is gone', () => {
    put('20260101T0000Z-a.pem');
    const keys = signingKeys();
    put('20260102T0000Z-b.pem');
    put('20990101T0000Z-c.pem');
    jest.advanceTimersByTime(2_000);
    expect(kidsOf(keys)).toHaveLength(1);
    jest.advanceTimersByTime(2_000);
    expect(kidsOf(keys)).toHaveLength(3);
    expect(keys.current().kid).toBe('20260102T0000Z-b');
    expect(keys.find('20990101T0000Z-c')).toBeDefined();
    rmSync(join(folder, '20260101T0000Z-a.pem'));
    look();
    expect(kidsOf(keys)).toHaveLength(2);
    expect(keys.find('20260101T0000Z-a')).toBeUndefined();
  });

  test('a signing key is replaced when a file of the same name holds another key', () => {
    put('20260101T0000Z-a.pem');
    const keys = signingKeys();
    const other = p256();
    put('20260101T0000Z-a.pem', pem(other));
    look();
    expect(keys.current().privateKey.equals(other)).toBe(true);
    expect(keys.current().publicKey.equals(createPublicKey(other))).toBe(true);
  });

  test('the old signing keys stay while the folder holds a broken file, and the log says so once, without its content', () => {
    put('20260101T0000Z-a.pem');
    const keys = signingKeys();
    put('20260102T0000Z-b.pem', 'hunter2-garbage');
    look();
    look();
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('20260102T0000Z-b.pem');
    expect(lines[0]).not.toContain('hunter2');
    expect(kidsOf(keys)).toEqual(['20260101T0000Z-a']);
    // And the last good set comes to an end as soon as there is a new one.
    put('20260102T0000Z-b.pem');
    look();
    expect(kidsOf(keys)).toHaveLength(2);
  });

  test('the old signing keys stay when the folder is emptied', () => {
    put('20260101T0000Z-a.pem');
    const keys = signingKeys();
    rmSync(join(folder, '20260101T0000Z-a.pem'));
    look();
    expect(lines).not.toEqual([]);
    expect(keys.current().kid).toBe('20260101T0000Z-a');
  });

  test('the old signing keys stay when the folder is gone, and the log says so once', () => {
    const gone = join(folder, 'gone');
    mkdirSync(gone);
    put(join('gone', '20260101T0000Z-a.pem'));
    const keys = signingKeys(gone);
    rmSync(gone, { recursive: true });
    look();
    look();
    expect(keys.current().kid).toBe('20260101T0000Z-a');
    expect(lines).toHaveLength(1);
  });

  test('the folder of signing keys is not read any more after the end', () => {
    put('20260101T0000Z-a.pem');
    const keys = signingKeys();
    keys.onModuleDestroy();
    put('20260102T0000Z-b.pem');
    look();
    expect(kidsOf(keys)).toEqual(['20260101T0000Z-a']);
  });
});

describe('the JWKS', () => {
  test('the JWKS holds public members of the keys only', async () => {
    const key = p256();
    put('20260101T0000Z-a.pem', pem(key));
    const keys = signingKeys();
    const jwks = keys.jwks();
    const { x, y } = await exportJWK(createPublicKey(key));
    expect(jwks).toEqual({
      keys: [{ kty: 'EC', crv: 'P-256', x, y, kid: '20260101T0000Z-a', use: 'sig', alg: 'ES256' }],
    });
    const { d } = await exportJWK(key);
    expect(JSON.stringify(jwks)).not.toContain(d);
  });
});

describe('without a folder', () => {
  test('without a folder a P-256 key is generated, signs at once, and the log warns about it', () => {
    const keys = signingKeys('');
    expect(keys.current().privateKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
    expect(keys.find(keys.current().kid)).toBe(keys.current());
    expect(keys.jwks().keys).toHaveLength(1);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('JWT_KEYS_DIR');
    expect(lines[0]).not.toContain('PRIVATE');
  });

  test('without a folder every process has a signing key of its own', async () => {
    const thumbprints = await Promise.all(
      Array.from({ length: 3 }, async () => calculateJwkThumbprint(signingKeys('').jwks().keys[0]!)),
    );
    expect(new Set(thumbprints).size).toBe(3);
  });
});
