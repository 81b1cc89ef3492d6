import type { RequestId } from './request-ids';

/** The known state of the SMS of a challenge. */
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

/**
 * A challenge before its SMS is accepted, in the hands of one request: it verifies nothing, and voids no code. Everything
 * about its SMS is derived from the pair (request id, createdAt), because an Idempotency-Key that is used again after its
 * challenge expired gives the same request id.
 */
export interface Draft {
  readonly kind: 'new' | 'resumed';
  readonly id: RequestId;
  readonly requestId: string;
  /** In milliseconds of the store's clock. */
  readonly createdAt: number;
  /** Rises with each request that takes the lease: admission refuses a request after a later one. */
  readonly fencingToken: number;
  /** The mark of this request in the lease. */
  readonly owner: string;
  /** It was requested under an Idempotency-Key, so a repeat may come. */
  readonly keyed: boolean;
  /** An earlier request may have sent it, by this provider. */
  readonly maybeSent: boolean;
  /** The name of the provider that is to send it. */
  provider: string;
  nonce: string;
  lifeSeconds: number;
  /** It was requested with a device token of this number. */
  readonly byDevice: boolean;
  /** The number logged in within `returningSeconds`, or the client has a device token of it. */
  readonly returning: boolean;
  /** The number saw many wrong codes: only a client that solved a proof of work gets an SMS. */
  readonly needsProof: boolean;
}

/** The first request under this Idempotency-Key was answered: a repeat gets its answer. */
export interface Replay {
  readonly kind: 'replay';
  readonly request: OtpRequest;
}

/** The facts about the sending provider that a challenge needs. */
export interface Sender {
  /** Stands in the challenge and in the ledger. */
  readonly name: string;
  /** True where this service makes the code, so that the same code can be sent again. */
  readonly resendsCode: boolean;
}

/** A provider's answer to a send. */
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
