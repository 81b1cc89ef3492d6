// A Worker whose users log in at otp-login: module syntax, WebCrypto, no dependency.
const decode = (part) =>
  Uint8Array.from(atob(part.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
const json = (part) => JSON.parse(new TextDecoder().decode(decode(part)));

let cached = { keys: new Map(), until: 0 };

/** The public key of this id. The keys are fetched again every five minutes, and once for an id that is new. */
async function keyOf(kid, url) {
  if (!cached.keys.has(kid) || cached.until < Date.now()) {
    const { keys } = await (await fetch(`${url}/.well-known/jwks.json`)).json();
    const curve = { name: 'ECDSA', namedCurve: 'P-256' };
    const entries = keys
      .filter(({ kty }) => kty === 'EC')
      .map(async (key) => [key.kid, await crypto.subtle.importKey('jwk', key, curve, false, ['verify'])]);
    cached = { keys: new Map(await Promise.all(entries)), until: Date.now() + 300_000 };
  }
  return cached.keys.get(kid);
}

/** The claims of a good access token, else undefined. */
async function verify(token, { LOGIN_URL, LOGIN_ISSUER = LOGIN_URL, AUDIENCE = 'otp-login' }) {
  try {
    const [head, body, signature, ...rest] = token.split('.');
    const { alg, typ, kid } = json(head);
    // A token must not choose its own algorithm, and an ID token is no access token.
    if (rest.length > 0 || alg !== 'ES256' || typ !== 'at+jwt') return undefined;
    const key = await keyOf(kid, LOGIN_URL);
    const algorithm = { name: 'ECDSA', hash: 'SHA-256' };
    const signed = new TextEncoder().encode(`${head}.${body}`);
    if (!key || !(await crypto.subtle.verify(algorithm, key, decode(signature), signed))) return undefined;
    const claims = json(body);
    const alive = claims.exp > Date.now() / 1_000 - 5;
    return alive && claims.iss === LOGIN_ISSUER && claims.aud === AUDIENCE ? claims : undefined;
  } catch (error) {
    if (error instanceof TypeError && /fetch/.test(error.message)) throw error;
    return undefined;
  }
}

export default {
  async fetch(request, env) {
    const [, token] = /^Bearer (.+)$/.exec(request.headers.get('authorization') ?? '') ?? [];
    const claims = token && (await verify(token, env));
    if (!claims) return new Response(null, { status: 401, headers: { 'WWW-Authenticate': 'Bearer' } });
    return Response.json({ user: claims.sub, orders: [] });
  },
};
