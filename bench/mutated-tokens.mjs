// `npm run bench`: mutated access tokens, a million unless told otherwise, of which none may be accepted.
import { createHmac, createPrivateKey, generateKeyPairSync, sign } from 'node:crypto';
import { dist, login, startWorld } from './world.mjs';

const COUNT = Number(process.argv[2] ?? 1_000_000);
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
const part = (text) => Buffer.from(JSON.stringify(text)).toString('base64url');
const replaceAt = (text, at, by) => text.slice(0, at) + by + text.slice(at + 1);
const stranger = createPrivateKey(
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }),
);
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
const KINDS = {
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
  'no algorithm': (token) =>
    `${part({ ...header(token), alg: pick(['none', 'None', 'NONE', '']) })}.${token.split('.')[1]}.${pick(['', token.split('.')[2]])}`,
  'HMAC by the public key': (token) => {
    const head = part({ ...header(token), alg: 'HS256' });
    const body = token.split('.')[1];
    const mac = createHmac('sha256', JSON.stringify(keys.keys[0]))
      .update(`${head}.${body}`)
      .digest('base64url');
    return `${head}.${body}.${mac}`;
  },
  'a stranger’s key under our kid': (token) => signedBy(stranger, token.split('.')[0], token.split('.')[1]),
  'a stranger’s key in the header': (token) => {
    const head = part({
      ...header(token),
      kid: pick([undefined, 'x', header(token).kid]),
      jwk: keys.keys[0],
    });
    return signedBy(stranger, head, token.split('.')[1]);
  },
  'another type': (token) =>
    `${part({ ...header(token), typ: pick(['JWT', 'jwt', 'AT+JWT', undefined]) })}.${token.split('.').slice(1).join('.')}`,
  'an end that is missing': (token) => token.slice(0, random(token.length)),
  'more at its end': (token) => token + pick([...ALPHABET, '.', '=', ' ', '\0', '..', `.${token}`]),
  'a character that is no base64url': (token) =>
    replaceAt(token, random(token.length), pick(['+', '/', '=', ' ', '\n', 'é', '٣', '%'])),
};

const names = Object.keys(KINDS);
const counts = Object.fromEntries(names.map((name) => [name, 0]));
let accepted = 0;
const begin = performance.now();
for (let i = 0; i < COUNT; i++) {
  const name = names[i % names.length];
  const token = pick(good);
  const mutated = KINDS[name](token);
  // A draw that gave the token itself is no mutation.
  if (mutated === token) continue;
  counts[name] += 1;
  if ((await tokens.verify(mutated)) !== undefined) {
    accepted += 1;
    console.log(`accepted, ${name}: ${mutated}`);
  }
}
const seconds = (performance.now() - begin) / 1_000;
const stillGood = (await Promise.all(good.map((token) => tokens.verify(token)))).every(Boolean);
// (r, n - s) is another text of the same ES256 signature, and any verifier takes it. It says nothing new: sessions are
// revoked by `sid`, never by a token's text. So it is not among the mutations.
for (const name of names) console.log(`${String(counts[name]).padStart(9)}  ${name}`);
const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
console.log(
  `${String(total).padStart(9)}  in all, ${Math.round(total / seconds)} a second; accepted: ${accepted}`,
);
process.exit(accepted === 0 && stillGood ? 0 : 1);
