import { createHmac, createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { JwtService } from '@nestjs/jwt';
import { exportJWK, SignJWT, type JWTPayload } from 'jose';
import { readConfig } from '../../src/config/read-config';
import { Logger } from '../../src/logging/logger';
import { Metrics } from '../../src/metrics/metrics';
import { AccessTokens } from '../../src/tokens/access-tokens';
import { SigningKeys } from '../../src/tokens/signing-keys';

const ISSUER = 'https://login.example.com';
const AUDIENCE = 'otp-login';
const RESOURCE = 'https://orders.example.com';
const SIGNING = '20260101T0000Z-a';
const FUTURE = '20990101T0000Z-b';
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

const privateKeys: Record<string, KeyObject> = {};
let folder: string;
let keys: SigningKeys;
let tokens: AccessTokens;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-tokens-'));
  for (const kid of [SIGNING, FUTURE]) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    privateKeys[kid] = privateKey;
    writeFileSync(join(folder, `${kid}.pem`), privateKey.export({ format: 'pem', type: 'pkcs8' }));
  }
  const config = readConfig({
    NODE_ENV: 'test',
    STARTMESSAGING_API_KEY: 'sm_live_x',
    JWT_KEYS_DIR: folder,
    ISSUER,
    AUDIENCE,
    RESOURCE_AUDIENCES: RESOURCE,
  });
  keys = new SigningKeys(config, new Logger('silent', { write: () => undefined }), new Metrics());
  tokens = new AccessTokens(config, new JwtService({}), keys);
});
afterAll(() => {
  keys.onModuleDestroy();
  rmSync(folder, { recursive: true });
});

const now = (): number => Math.floor(Date.now() / 1_000);
const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

interface Changes {
  header?: Record<string, unknown>;
  claims?: JWTPayload;
  key?: KeyObject;
}

/** A good token, made by another library than the one that verifies it; and what a test wants different. */
async function token({
  header = {},
  claims = {},
  key = privateKeys[SIGNING]!,
}: Changes = {}): Promise<string> {
  return new SignJWT({
    iss: ISSUER,
    aud: AUDIENCE,
    sub: 'subject-of-22-letters-',
    sid: 'session-of-22-letters-',
    iat: now(),
    exp: now() + 600,
    ...claims,
  })
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: SIGNING, ...header })
    .sign(key);
}

/** Signs header and claims with our own key, whatever they say: what jose would refuse to make. */
function signed(header: unknown, claims: unknown = {}): string {
  const body = `${encode(header)}.${encode({ iss: ISSUER, aud: AUDIENCE, sub: 's', sid: 's', iat: now(), exp: now() + 600, ...(claims as object) })}`;
  const signature = sign('sha256', Buffer.from(body), {
    key: privateKeys[SIGNING]!,
    dsaEncoding: 'ieee-p1363',
  });
  return `${body}.${signature.toString('base64url')}`;
}
const HEADER = { alg: 'ES256', typ: 'at+jwt', kid: SIGNING };

/** The same row of numbers below n each time (mulberry32). */
function dice(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

async function expectRefused(text: string): Promise<void> {
  expect(await tokens.verify(text)).toBeUndefined();
}

describe('an access token', () => {
  const claims = { subject: 'subject-of-22-letters-', sessionId: 'session-of-22-letters-' };

  test('an access token that this service signed verifies and names its subject and session', async () => {
    expect(await tokens.verify(await token())).toMatchObject(claims);
    // What the helper of other tests makes is refused for no other reason than theirs.
    expect(await tokens.verify(signed(HEADER))).toMatchObject({ subject: 's', sessionId: 's' });
  });

  test('an access token verifies by any published key, also before that key signs here', async () => {
    expect(
      await tokens.verify(await token({ header: { kid: FUTURE }, key: privateKeys[FUTURE]! })),
    ).toMatchObject(claims);
  });

  test('an access token that was verified before is refused from the second in which it expires', async () => {
    const exp = now() + 30;
    const good = await token({ claims: { exp } });
    expect(await tokens.verify(good)).toMatchObject(claims);
    const clock = jest.spyOn(Date, 'now').mockReturnValue((exp - 1) * 1_000);
    expect(await tokens.verify(good)).toMatchObject(claims);
    clock.mockReturnValue(exp * 1_000);
    await expectRefused(good);
    clock.mockRestore();
  });

  test('an access token that was verified before is refused once its key is no longer published', async () => {
    const good = await token({ header: { kid: FUTURE }, key: privateKeys[FUTURE]! });
    expect(await tokens.verify(good)).toMatchObject(claims);
    const file = join(folder, `${FUTURE}.pem`);
    const pem = readFileSync(file);
    rmSync(file);
    // A change counts after two reads in a row.
    for (let i = 0; i < 2; i++) keys.poll();
    await expectRefused(good);
    writeFileSync(file, pem);
    for (let i = 0; i < 2; i++) keys.poll();
    expect(await tokens.verify(good)).toMatchObject(claims);
  });

  test('an access token is valid until the last second of its life', async () => {
    expect(await tokens.verify(await token({ claims: { exp: now() + 30 } }))).toMatchObject(claims);
    await expectRefused(await token({ claims: { exp: now() } }));
    await expectRefused(await token({ claims: { exp: now() - 1 } }));
    await expectRefused(await token({ claims: { iat: 0, exp: 1 } }));
  });

  test.each<[string, Changes]>([
    ['another issuer', { claims: { iss: 'https://login.example.org' } }],
    ['its issuer with a slash', { claims: { iss: `${ISSUER}/` } }],
    ['no issuer', { claims: { iss: undefined } as never }],
    ['another audience', { claims: { aud: 'other' } }],
    ['a longer audience', { claims: { aud: `${AUDIENCE}2` } }],
    ['no audience', { claims: { aud: undefined } as never }],
    ['an empty list of audiences', { claims: { aud: [] } }],
    ['a time before which it is not good', { claims: { nbf: now() + 600 } }],
    ['no subject', { claims: { sub: undefined } as never }],
    ['no session', { claims: { sid: undefined } }],
    ['a session that is a list', { claims: { sid: ['session-of-22-letters-'] } }],
    ['a session that is a number', { claims: { sid: 1 } }],
    ['the type of an ID token', { header: { typ: 'JWT' } }],
    ['the type of a refresh token', { header: { typ: 'rt+jwt' } }],
    ['a list of types', { header: { typ: ['at+jwt'] as never } }],
    ['no type', { header: { typ: undefined } }],
    ['the kid of another key of ours', { header: { kid: FUTURE } }],
    ['an unknown kid', { header: { kid: '20260101T0000Z-c' } }],
    ['a kid that walks the file system', { header: { kid: `../${SIGNING}` } }],
    ['a kid of the prototype', { header: { kid: '__proto__' } }],
    ['a list of kids', { header: { kid: [SIGNING] as never } }],
    ['an empty kid', { header: { kid: '' } }],
    ['no kid', { header: { kid: undefined } }],
  ])('an access token with %s is refused', async (_, changes) => {
    await expectRefused(await token(changes));
  });

  test.each<[string, JWTPayload, boolean]>([
    ['the audience and the client of the service', { client_id: AUDIENCE }, true],
    ['the audience of a resource server', { aud: RESOURCE, client_id: AUDIENCE }, false],
    ['the client of an app', { client_id: 'shop' }, false],
    [
      'the audience of a resource server and the client of an app',
      { aud: RESOURCE, client_id: 'shop' },
      false,
    ],
    ['no client', {}, false],
    ['a list of clients', { client_id: [AUDIENCE] }, false],
  ])(
    'an access token with %s verifies; whether the user’s own client holds it is checked, too',
    async (_, changed, own) => {
      const given = await token({ claims: changed });
      expect(await tokens.verify(given)).toMatchObject(claims);
      expect((await tokens.verifyOwn(given)) !== undefined).toBe(own);
    },
  );

  test('an access token that a foreign key signed is refused', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    await expectRefused(await token({ key: privateKey }));
  });

  test('an access token that a foreign key signed is refused although its header brings that key along', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const jwk = await exportJWK(publicKey);
    for (const header of [
      { jwk },
      { jwk: { ...jwk, kid: SIGNING } },
      { jku: 'http://127.0.0.1:1/jwks.json' },
      { x5u: 'http://127.0.0.1:1/cert.pem' },
      { x5c: ['MIIB'] },
    ]) {
      await expectRefused(await token({ header, key: privateKey }));
    }
  });

  test('the verifier reads no key out of the header of our own tokens', async () => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const text = signed({ ...HEADER, jwk: await exportJWK(publicKey), jku: 'http://127.0.0.1:1/' });
    expect(await tokens.verify(text)).toMatchObject({ subject: 's', sessionId: 's' });
  });
});

describe('another algorithm is refused', () => {
  const body = (alg: unknown, more: object = {}): string =>
    `${encode({ ...HEADER, alg, ...more })}.${encode({ iss: ISSUER, aud: AUDIENCE, sub: 's', sid: 's', exp: now() + 600 })}`;

  test.each(['none', 'None', 'NONE', 'nOnE', '', undefined, null, ['none'], 'ES256 '])(
    'an access token with the algorithm %p and no signature is refused',
    async (alg) => {
      await expectRefused(`${body(alg)}.`);
      await expectRefused(body(alg));
      await expectRefused(`${body(alg)}.AA`);
      await expectRefused(`${body(alg)}.${(await token()).split('.')[2]!}`);
    },
  );

  test('an access token in HS256 with the public key as its secret is refused', async () => {
    const publicKey = createPublicKey(privateKeys[SIGNING]!);
    const jwk = await exportJWK(publicKey);
    const secrets: (string | Buffer)[] = [
      publicKey.export({ format: 'pem', type: 'spki' }),
      publicKey.export({ format: 'pem', type: 'spki' }).toString().trim(),
      publicKey.export({ format: 'der', type: 'spki' }),
      JSON.stringify(jwk),
      Buffer.from(jwk.x!, 'base64url'),
      '',
    ];
    for (const secret of secrets) {
      for (const [alg, hash] of [
        ['HS256', 'sha256'],
        ['HS384', 'sha384'],
        ['HS512', 'sha512'],
      ] as const) {
        const text = body(alg);
        await expectRefused(`${text}.${createHmac(hash, secret).update(text).digest('base64url')}`);
      }
    }
  });

  test.each(['ES384', 'ES512', 'RS256', 'PS256', 'EdDSA', 'es256', 'ES256K'])(
    'an access token in %s, signed by our own key, is refused',
    async (alg) => {
      await expectRefused(signed({ ...HEADER, alg }));
    },
  );

  test('an ES256 access token whose signature is in DER is refused', async () => {
    const text = body('ES256');
    await expectRefused(
      `${text}.${sign('sha256', Buffer.from(text), privateKeys[SIGNING]!).toString('base64url')}`,
    );
  });

  test('an ES256 access token whose signature is all zeros is refused', async () => {
    await expectRefused(`${body('ES256')}.${Buffer.alloc(64).toString('base64url')}`);
    await expectRefused(`${body('ES256')}.${Buffer.alloc(64, 255).toString('base64url')}`);
    await expectRefused(`${body('ES256')}.`);
  });
});

describe('a token that was changed', () => {
  test.each([
    ['header', 0],
    ['payload', 1],
    ['signature', 2],
  ])(
    'an access token with one changed character in its %s is refused, two hundred times',
    async (_, part) => {
      const good = await token();
      const random = dice(part + 1);
      let changed = 0;
      for (let i = 0; i < 200; i++) {
        const parts = good.split('.');
        const text = parts[part]!;
        const at = random(text.length);
        parts[part] = text.slice(0, at) + ALPHABET[random(64)]! + text.slice(at + 1);
        const mutated = parts.join('.');
        if (mutated === good) continue;
        changed += 1;
        await expectRefused(mutated);
      }
      expect(changed).toBeGreaterThan(190);
      expect(await tokens.verify(good)).toBeDefined();
    },
  );

  test.each([
    ['header', 0],
    ['payload', 1],
    ['signature', 2],
  ])(
    'an access token with several changed bytes in its %s is refused, two hundred times',
    async (_, part) => {
      const good = await token();
      const random = dice(part + 11);
      for (let i = 0; i < 200; i++) {
        const parts = good.split('.');
        const bytes = Buffer.from(parts[part]!, 'base64url');
        for (let n = random(4); n >= 0; n--) bytes[random(bytes.length)]! ^= 1 + random(255);
        parts[part] = bytes.toString('base64url');
        // Two changes of one byte may undo each other.
        if (parts.join('.') !== good) await expectRefused(parts.join('.'));
      }
    },
  );

  test('an access token that lost characters at either end, or whose parts are moved, is refused', async () => {
    const good = await token();
    for (let length = 0; length < good.length; length++) await expectRefused(good.slice(0, length));
    for (let from = 1; from < good.length; from += 7) await expectRefused(good.slice(from));
    const [header = '', payload = '', signature = ''] = good.split('.');
    await expectRefused([payload, header, signature].join('.'));
    await expectRefused([header, signature, payload].join('.'));
  });

  test('a payload of one access token with the signature of another is refused', async () => {
    const [one, two] = [await token(), await token({ claims: { sub: 'somebody else' } })];
    const [header = '', , signature = ''] = one.split('.');
    await expectRefused([header, two.split('.')[1], signature].join('.'));
  });

  test('an access token is refused when its last character is replaced by one that decodes to the same bytes', async () => {
    // Of a last character that carries two or four bits a lenient decoder ignores the rest: other text, same bytes.
    let twins = 0;
    for (const subject of ['a', 'ab', 'abc']) {
      const good = await token({ claims: { sub: subject } });
      for (const part of [0, 1, 2]) {
        for (const character of ALPHABET) {
          const parts = good.split('.');
          const text = parts[part]!;
          parts[part] = text.slice(0, -1) + character;
          if (parts[part] === text) continue;
          if (Buffer.from(parts[part], 'base64url').equals(Buffer.from(text, 'base64url'))) twins += 1;
          await expectRefused(parts.join('.'));
        }
      }
    }
    // The 64 bytes of every signature alone leave four bits: 15 twins of three tokens.
    expect(twins).toBeGreaterThanOrEqual(45);
  });

  test('an access token with anything behind, before or between its parts is refused', async () => {
    const good = await token();
    const [header = '', payload = '', signature = ''] = good.split('.');
    const more = [
      '=',
      '==',
      ' ',
      '\n',
      '\t',
      '\0',
      '.',
      '..',
      'A',
      'AAAA',
      '.AAAA',
      ',',
      ';',
      '%00',
      '\u200b',
      `.${good}`,
      good,
    ];
    for (const text of more) {
      await expectRefused(good + text);
      await expectRefused(text + good);
      await expectRefused([header + text, payload, signature].join('.'));
      await expectRefused([header, payload + text, signature].join('.'));
      await expectRefused([header, text + payload, signature].join('.'));
      await expectRefused([header, payload, text + signature].join('.'));
    }
    await expectRefused([header, payload, '', signature].join('.'));
    await expectRefused([header, '', payload, signature].join('.'));
    await expectRefused(`Bearer ${good}`);
    await expectRefused(encodeURIComponent(`${good} `));
  });

  test('an access token in base64 in place of base64url is refused', async () => {
    for (let i = 0; i < 200; i++) {
      const good = await token({ claims: { n: i } });
      const classic = good.replace(/-/g, '+').replace(/_/g, '/');
      if (classic !== good) await expectRefused(classic);
    }
  });
});

describe('text that is no token', () => {
  test.each([
    ['nothing', ''],
    ['dots', '..'],
    ['many dots', '.'.repeat(4_000)],
    ['a word', 'token'],
    ['three words', 'a.b.c'],
    ['JSON', '{"alg":"ES256"}'],
    ['a header that is null', `${encode(null)}.${encode({})}.AAAA`],
    ['a header that is a list', `${encode([HEADER])}.${encode({})}.AAAA`],
    ['a header that is a string', `${encode('x')}.${encode({})}.AAAA`],
    ['a header that is a number', `${encode(1)}.${encode({})}.AAAA`],
    ['a JWE of five parts', 'eyJh.AAAA.AAAA.AAAA.AAAA'],
    ['other scripts', 'ééé.ééé.ééé'],
    ['a null byte', '\0'],
  ])('a text that is no token is refused without an error: %s', async (_, text) => {
    await expectRefused(text);
  });

  test('a token whose claims are no object is refused, though our key signed it', async () => {
    for (const claims of [null, [], 'x', 1, true]) {
      const body = `${encode(HEADER)}.${encode(claims)}`;
      const signature = sign('sha256', Buffer.from(body), {
        key: privateKeys[SIGNING]!,
        dsaEncoding: 'ieee-p1363',
      });
      await expectRefused(`${body}.${signature.toString('base64url')}`);
    }
  });

  test('a huge token is refused before anything of it is decoded', async () => {
    const decode = jest.spyOn(Buffer, 'from');
    await expectRefused('A'.repeat(1_000_000));
    await expectRefused('.'.repeat(1_000_000));
    expect(decode).not.toHaveBeenCalled();
    decode.mockRestore();
  });

  test('a token longer than any of ours is refused, although its signature verifies', async () => {
    expect(await tokens.verify(signed(HEADER, { more: 'x'.repeat(2_000) }))).toBeDefined();
    await expectRefused(signed(HEADER, { more: 'x'.repeat(4_000) }));
  });
});
