import { createHash } from 'node:crypto';
import { isWeak, type Rule } from './rules';
import type { Environment } from './settings';

/** An operator for /admin, by the SHA-256 of a token: the token itself is not stored. */
export interface AdminToken {
  /** Stands in the audit. */
  readonly name: string;
  /** 32 bytes. */
  readonly digest: Buffer;
  /** Whether the token itself stood in the configuration. */
  readonly plain: boolean;
  /** Whether that token is easy to guess. */
  readonly weak: boolean;
}

/** `name:sha256:hex`, or `name:token`. A bare hash is enough: an operator's token is random, and no dictionary holds it. */
export const adminToken: Rule<AdminToken> = {
  expected:
    'name:sha256:hex or name:token, the name of 1 to 64 letters, digits and ._~-, the token of 32 to 256 visible ASCII characters',
  read(text) {
    const [, name, hex, token] =
      /^([\w.~-]{1,64}):(?:sha256:([0-9a-f]{64})|((?!sha256:)[!-+\--~]{32,256}))$/.exec(text) ?? [];
    if (name === undefined) return undefined;
    if (hex !== undefined) return { name, digest: Buffer.from(hex, 'hex'), plain: false, weak: false };
    return { name, digest: tokenDigest(token ?? ''), plain: true, weak: isWeak(token ?? '') };
  },
};

/** Tokens are compared by digests, because these have one length for every input. */
export function tokenDigest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/**
 * The token of an operator's tool for a running service, from the variable ADMIN_TOKEN: other users of the machine could read an
 * argument in the list of processes. The service itself reads ADMIN_TOKENS only.
 */
export function operatorToken(environment: Environment = process.env): string | undefined {
  // fetch would repeat an invalid header value in its error.
  const token = environment.ADMIN_TOKEN?.trim() ?? '';
  return /^[!-~]+$/.test(token) ? token : undefined;
}
