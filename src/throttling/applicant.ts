import type { Sms } from '../ledger/sms';

/** A send that is known again by the key that it came under. */
export interface Repeat {
  /** The send. */
  of: string;
  /** Which of the requests under the key this is: where a later one was here, this one is refused. */
  turn: number;
  /** Upstream is asked also when it may have been before; otherwise nothing is sent then. */
  sendsAgain: boolean;
}

/** Who asks for an SMS. */
export interface Applicant {
  pseudonym: string;
  /** Holds a token of an earlier login with this number. */
  byDevice: boolean;
  /** The number logged in within 30 days. */
  returning: boolean;
  /** Where the guard counts it. */
  scopes: readonly string[];
  /** The address range that asks. */
  network: string;
  /** Who is to send it. */
  provider: string;
  /** Set under an Idempotency-Key: this send may have been admitted before. */
  repeat?: Repeat | undefined;
  /** The name of a solved proof of work. */
  solution?: string | undefined;
}

/** The right to send one SMS: it was counted by every limit, charged to the budget, and is in the ledger. */
export interface Admitted {
  pseudonym: string;
  /** Milliseconds until this phone number may ask for the next SMS. */
  resendAfterMs: number;
  sms: Sms;
  /** Where the guard counted it. */
  scopes: readonly string[];
  /** The budget's buckets that were charged, for {@link Admission.refund}. */
  charged: [minute: string, quarter: string];
  /** It was admitted before, and not given back: neither counted nor charged again. */
  again: boolean;
  repeat: Repeat | undefined;
}
