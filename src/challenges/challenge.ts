/** What is known of the SMS of a challenge. */
export type Delivery = 'accepted' | 'sent' | 'delivered' | 'failed' | 'unknown';

export type OtpState = 'pending' | 'verified' | 'expired' | 'exhausted';

/** How a request for a code stands, as its client sees it. */
export interface OtpRequest {
  requestId: string;
  expiresAt: Date;
  attemptsLeft: number;
  resendAt: Date;
  delivery: Delivery;
}

/** What a challenge needs to know of the provider that sends its code. */
export interface Sender {
  /** Stands in the challenge and in the ledger. */
  readonly name: string;
  /** True where this service makes the code, so that the same code can be sent again. */
  readonly resendsCode: boolean;
}

/** What a provider answered to a send. */
export interface Sent {
  /** `unknown`: the SMS may have arrived, and its code must work if it did. */
  delivery: Delivery;
  /** The provider's own id of the OTP; it never leaves this service towards a caller. */
  upstreamId?: string | undefined;
  /** The provider's id of the SMS, by which its delivery is looked up. */
  messageId?: string | undefined;
  expiresAt?: Date | undefined;
  attemptsLeft?: number | undefined;
}
