import type { Delivery } from './otp-provider';

/** What the asker of a code is told. */
export interface OtpRequest {
  requestId: string;
  expiresAt: Date;
  attemptsLeft: number;
  resendAt: Date;
  delivery: Delivery;
}

export type OtpState = 'pending' | 'verified' | 'expired' | 'exhausted';
