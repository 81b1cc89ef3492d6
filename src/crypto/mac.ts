import { createHmac, timingSafeEqual } from 'node:crypto';

/** HMAC-SHA256 (RFC 2104), cut to its first 128 bits: 22 base64url characters. */
export function hmac128(key: Buffer, text: string): string {
  return createHmac('sha256', key).update(text).digest().subarray(0, 16).toString('base64url');
}

/** The MAC of a token: HMAC-SHA256 as 43 base64url characters. */
export function tokenMac(key: Buffer, body: string): string {
  return createHmac('sha256', key).update(body).digest('base64url');
}

/** Compares two secrets so that the time tells nothing of where they differ. Their lengths are no secret. */
export function constantTimeEqual(one: string | Buffer, other: string | Buffer): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}
