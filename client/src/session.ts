import type { User } from './types.js';

/** `expiresAt` is of this device's clock, counted from the receipt: a wrong clock does no harm. */
export type Token = [accessToken: string, expiresAt: number];

/**
 * The string of the store, as a tuple to be short. In cookie mode it holds no tokens: it is a marker that a refresh is worth
 * a request. `key` is the Idempotency-Key of a refresh that was sent and not answered yet.
 */
export type Session = [user: User, token: Token | 0, refreshToken?: string, key?: string];

export interface Tokens {
  accessToken: string;
  expiresIn: number;
  refreshToken?: string;
}

/** Only these end a session, and only as the service's own 401 of a refresh. */
export const ENDS = /^(not_l|ref|ses)/;

/** Times of this device's clock in place of those of the service: cheap phones have wrong clocks. */
export const stamp = ({ expiresInSeconds, resendInSeconds, ...rest }: Record<string, unknown>): never =>
  ({
    ...rest,
    expiresAt: Date.now() + (expiresInSeconds as number) * 1_000,
    resendAt: Date.now() + (resendInSeconds as number) * 1_000,
  }) as never;
