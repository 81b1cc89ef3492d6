import type { Delivery, Sender, Sent } from '../challenges/challenge';
import type { ApiError } from '../errors/api-error';
import type { PhoneNumber } from '../phone-number/phone-number';

/** The part of a challenge that a provider gets. */
export interface Challenge {
  phone: PhoneNumber;
  /** Names the code, where this service makes it. */
  nonce: string;
  /** How long the code will work, in seconds. */
  lifeSeconds: number;
  /** Stays the same over every repeat of this send, and tells nothing of our request id. */
  idempotencyKey: string;
  /** When it must be over, by `performance.now()`. */
  until: number;
}

/** A call of a provider that failed: what the caller is told, and what the domain must know of it. */
export class ProviderError extends Error {
  constructor(
    readonly refusal: ApiError,
    /** `no`: certainly nothing was sent and no code was looked at, so money and attempts are given back. */
    readonly accepted: 'no' | 'unknown',
    /** Certainly nothing was sent, and that is the provider's fault and not the person's: another one may send it. */
    readonly elsewhere = false,
  ) {
    super('The provider failed', { cause: refusal });
  }
}

/** Sends an SMS and checks its code. A right and a wrong code are values; a failure is an exception. */
export interface OtpProvider extends Sender {
  /** True where upstream knows a repeated send by its key, so that the repeat is no second SMS. */
  readonly supportsIdempotencyKeys: boolean;
  /** Sends one SMS. Throws {@link ProviderError}. */
  send(challenge: Challenge): Promise<Sent>;
  /** Looks at the code. Throws {@link ProviderError}. */
  verify(
    challenge: { phone: PhoneNumber; nonce: string; upstreamId: string },
    code: string,
  ): Promise<boolean>;
  /** The state of an SMS, and its price in ten-thousandths of a rupee if the provider tells it. Best effort. */
  delivery?(messageId: string): Promise<{ delivery: Delivery; cost?: number | undefined }>;
}
