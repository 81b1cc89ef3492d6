import { createHash, createPrivateKey } from 'node:crypto';

/** RFC 7517, with the members of RFC 7518 section 6.2.1. */
export type PublicJwk = Record<'kty' | 'crv' | 'x' | 'y' | 'kid' | 'use' | 'alg', string>;

interface SigningKey {
  jwk: PublicJwk;
  verifies: CryptoKey;
}

/** The P-256 keys of access tokens: the first signs, all are published and verify. */
export interface SigningKeys {
  kid: string;
  signs: CryptoKey;
  byKid: ReadonlyMap<string, SigningKey>;
}

const ECDSA = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' } as const;
const BLOCK = /-----BEGIN (?:EC )?PRIVATE KEY-----[^-]+-----END (?:EC )?PRIVATE KEY-----/g;

/**
 * Reads the PEM blocks of JWT_KEY. A line end may be written as `\n`: a JSON text and many consoles hold one line.
 * @throws Error with a message that completes "JWT_KEY ..." and never quotes the key.
 */
export async function parseKeys(text: string): Promise<SigningKeys> {
  const blocks = text.replaceAll('\\n', '\n').match(BLOCK) ?? [];
  if (blocks.length === 0) throw new Error('must hold a PEM private key of the curve P-256');
  const read = blocks.map((pem) => {
    try {
      return createPrivateKey(pem).export({ format: 'jwk' });
    } catch {
      throw new Error('holds a block that is not a readable PEM private key');
    }
  });
  if (read.some(({ crv }) => crv !== 'P-256')) throw new Error('holds a key that is not of the curve P-256');
  const byKid = new Map<string, SigningKey>();
  for (const { x = '', y = '' } of read) {
    const members = { kty: 'EC', crv: 'P-256', x, y };
    // RFC 7638: the same key has the same kid in every deployment.
    const thumbprint = createHash('sha256').update(JSON.stringify({ crv: 'P-256', kty: 'EC', x, y }));
    const jwk = { ...members, kid: thumbprint.digest('base64url'), use: 'sig', alg: 'ES256' };
    byKid.set(jwk.kid, {
      jwk,
      verifies: await crypto.subtle.importKey('jwk', members, ECDSA, false, ['verify']),
    });
  }
  const [first] = read;
  const [kid = ''] = byKid.keys();
  const { x, y, d } = first as { x: string; y: string; d: string };
  const members = { kty: 'EC', crv: 'P-256', x, y, d };
  return { kid, signs: await crypto.subtle.importKey('jwk', members, ECDSA, false, ['sign']), byKid };
}

/** Signs as RFC 7518 section 3.4 says. */
export async function signText({ signs }: SigningKeys, text: string): Promise<string> {
  return Buffer.from(await crypto.subtle.sign(SIGNATURE, signs, Buffer.from(text))).toString('base64url');
}

/** Whether the key of this id made the signature. */
export async function verifyText(
  { byKid }: SigningKeys,
  kid: unknown,
  text: string,
  signature: string,
): Promise<boolean> {
  const key = typeof kid === 'string' ? byKid.get(kid) : undefined;
  if (key === undefined) return false;
  return crypto.subtle.verify(
    SIGNATURE,
    key.verifies,
    Buffer.from(signature, 'base64url'),
    Buffer.from(text),
  );
}
