import { keysOfUser } from './keys';
import type { Answer } from './world';

/** The claims of an access token that the service issued. */
export interface IdempotencyLock {
  sub: string;
  sid: string;
  jti: string;
  iat: number;
  exp: number;
  auth_time: number;
}

const part = (token: unknown, index: 0 | 1): unknown =>
  JSON.parse(Buffer.from(String(token).split('.')[index] ?? '', 'base64url').toString());

export const claimsOf = (token: unknown): IdempotencyLock => part(token, 1) as IdempotencyLock;
/** The key that signed a token. */
export const kidOf = (token: unknown): string => (part(token, 0) as { kid: string }).kid;
export const bearer = (token: unknown): Record<string, string> => ({
  authorization: `Bearer ${String(token)}`,
});

/** The key in Redis of the session that a login or a refresh answered with. */
export function sessionKeyOf({ body }: Answer): string {
  const { sub, sid } = claimsOf(body.accessToken);
  return keysOfUser(sub).session(sid);
}
