// `npm run bench`: a million mutated access tokens, of which none may be accepted.
import { createHmac, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { inSteps, part } from './parts.mjs';
import { dist, login, startWorld } from './world.mjs';

const COUNT = part(1_000_000);
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

const world = await startWorld();
const tokens = world.app.get(dist('tokens/access-tokens').AccessTokens);
const keys = await world.app.get(dist('tokens/signing-keys').SigningKeys).jwks();
const sessions = [];
for (let i = 0; i < 20; i++) {
  sessions.push(await login(world, `+9198${10_000_000 + i}`, { device: 'Bench', address: '127.0.0.0/24' }));
}
const good = await Promise.all(sessions.map(async (session) => (await tokens.issue(session)).accessToken));

// The same mutations in every run: a failure can be run again.
let state = 20261121;
const random = (below) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};
const pick = (list) => list[random(list.length)];
const json = (text) => Buffer.from(JSON.stringify(text)).toString('base64url');
const replaceAt = (text, at, by) => text.slice(0, at) + by + text.slice(at + 1);
const { privateKey: stranger, publicKey: strangers } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ourPem = createPublicKey({ key: keys.keys[0], format: 'jwk' }).export({ type: 'spki', format: 'pem' });
const header = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url'));
const signedBy = (key, head, body) =>
  `${head}.${body}.${sign('sha256', Buffer.from(`${head}.${body}`), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;

/** Another character somewhere in one part. */
const changed = (which) => (token) => {
  const parts = token.split('.');
  const at = random(parts[which].length);
  const other = pick([...ALPHABET].filter((letter) => letter !== parts[which][at]));
  parts[which] = replaceAt(parts[which], at, other);
  return parts.join('.');
};
/** One bit of what a part decodes to. */
const flipped = (which) => (token) => {
  const parts = token.split('.');
  const bytes = Buffer.from(parts[which], 'base64url');
  bytes[random(bytes.length)] ^= 1 << random(8);
  parts[which] = bytes.toString('base64url');
  return parts.join('.');
};
/** Another header under the same signature. */
const headed = (change) => (token) => {
  const [, ...rest] = token.split('.');
  return [json({ ...header(token), ...change() }), ...rest].join('.');
};
const KINDS = {
  'a bit of the header': flipped(0),
  'a bit of the claims': flipped(1),
  'a bit of the signature': flipped(2),
  'a character of the header': changed(0),
  'a character of the claims': changed(1),
  'a character of the signature': changed(2),
  'the last character, to its base64url twin': (token) =>
    token.slice(0, -1) + pick([...ALPHABET].filter((letter) => letter !== token.at(-1))),
  'the claims of another token': (token) => {
    const [head, , signature] = token.split('.');
    const other = pick(good.filter((text) => text !== token));
    return [head, other.split('.')[1], signature].join('.');
  },
  'the signature of another token': (token) => {
    const [head, body] = token.split('.');
    return [head, body, pick(good.filter((text) => text !== token)).split('.')[2]].join('.');
  },
  'its parts in another order': (token) => {
    const [a, b, c] = token.split('.');
    return pick([
      [a, c, b],
      [b, a, c],
      [b, c, a],
      [c, a, b],
      [c, b, a],
      [a, a, c],
      [b, b, c],
    ]).join('.');
  },
  'another algorithm': headed(() => ({
    alg: pick([
      'ES384',
      'ES512',
      'ES256K',
      'EdDSA',
      'RS256',
      'PS256',
      'HS384',
      'es256',
      256,
      ['ES256'],
      null,
    ]),
  })),
  'another kid': headed(() => ({
    kid: pick([
      'x',
      '',
      '../../dev/null',
      "' OR 1=1",
      '__proto__',
      'constructor',
      0,
      null,
      [],
      {},
      undefined,
    ]),
  })),
  'a field of the header twice': (token) => {
    const [, ...rest] = token.split('.');
    const { alg, typ, kid } = header(token);
    const twice = pick([
      `{"alg":"none","alg":"${alg}","typ":"${typ}","kid":"${kid}"}`,
      `{"alg":"${alg}","typ":"${typ}","kid":"${kid}","alg":"none"}`,
      `{"alg":"${alg}","typ":"JWT","typ":"${typ}","kid":"${kid}"}`,
      `{"alg":"${alg}","typ":"${typ}","kid":"x","kid":"${kid}"}`,
      `{"alg":"${alg}","typ":"${typ}","kid":"${kid}","kid":"${kid}"}`,
    ]);
    return [Buffer.from(twice).toString('base64url'), ...rest].join('.');
  },
  'no algorithm': (token) =>
    `${json({ ...header(token), alg: pick(['none', 'None', 'NONE', '']) })}.${token.split('.')[1]}.${pick(['', token.split('.')[2]])}`,
  'HMAC by the public key': (token) => {
    const head = json({ ...header(token), alg: 'HS256' });
    const body = token.split('.')[1];
    const mac = createHmac('sha256', pick([ourPem, ourPem.trim(), JSON.stringify(keys.keys[0]), '']))
      .update(`${head}.${body}`)
      .digest('base64url');
    return `${head}.${body}.${mac}`;
  },
  'a stranger’s key under our kid': (token) => signedBy(stranger, token.split('.')[0], token.split('.')[1]),
  'a stranger’s key in the header': (token) => {
    const head = json({
      ...header(token),
      kid: pick([undefined, 'x', header(token).kid]),
      jwk: strangers.export({ format: 'jwk' }),
    });
    return signedBy(stranger, head, token.split('.')[1]);
  },
  'another type': (token) =>
    `${json({ ...header(token), typ: pick(['JWT', 'jwt', 'AT+JWT', undefined]) })}.${token.split('.').slice(1).join('.')}`,
  'an end that is missing': (token) => token.slice(0, random(token.length)),
  'more at its end': (token) => token + pick([...ALPHABET, '.', '=', ' ', '\0', '..', `.${token}`]),
  'a character that is no base64url': (token) =>
    replaceAt(
      token,
      random(token.length),
      pick(['+', '/', '=', ' ', '\n', '\0', 'é', '٣', '%', 'Ａ', '\u200b', '\ud800', '😀']),
    ),
};

const names = Object.keys(KINDS);
const counts = Object.fromEntries(names.map((name) => [name, 0]));
let accepted = 0;
const begin = performance.now();
await inSteps('mutated tokens', COUNT, async (i) => {
  const name = names[i % names.length];
  const token = pick(good);
  const mutated = KINDS[name](token);
  // A draw that gave the token itself is no mutation.
  if (mutated === token) return;
  counts[name] += 1;
  if ((await tokens.verify(mutated)) !== undefined) {
    accepted += 1;
    console.log(`accepted, ${name}: ${mutated}`);
  }
});
const seconds = (performance.now() - begin) / 1_000;
const stillGood = (await Promise.all(good.map((token) => tokens.verify(token)))).every(Boolean);
// (r, n - s) is another text of the same ES256 signature, and any verifier takes it. It says nothing new: sessions are
// revoked by `sid`, never by a token's text. So it is not among the mutations, and is shown to say the same.
const N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const twinOf = (token) => {
  const [head, body, signature] = token.split('.');
  const bytes = Buffer.from(signature, 'base64url');
  const s = N - BigInt(`0x${bytes.subarray(32).toString('hex')}`);
  bytes.write(s.toString(16).padStart(64, '0'), 32, 'hex');
  return [head, body, bytes.toString('base64url')].join('.');
};
const pairs = good.map((token) => Promise.all([tokens.verify(token), tokens.verify(twinOf(token))]));
const twinsSayTheSame = (await Promise.all(pairs)).every(
  ([one, twin]) => one && twin?.sessionId === one.sessionId,
);
if (!twinsSayTheSame) console.log('The twin of a signature says something else');
for (const name of names) console.log(`${String(counts[name]).padStart(9)}  ${name}`);
const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
console.log(
  `${String(total).padStart(9)}  in all, ${Math.round(total / seconds)} a second; accepted: ${accepted}`,
);
process.exit(accepted === 0 && stillGood && twinsSayTheSame ? 0 : 1);
