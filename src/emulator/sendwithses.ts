import { type Account, newCode } from './account';
import type { Answer } from './responses';
import { type Outcome, refused } from './contracts';

type Fields = Record<string, unknown>;

/** `POST /send-otp` of Send With SES: one live code per number, and a send voids the one before. */
export function sendBySes(account: Account, { mobile }: Fields): Outcome {
  if (typeof mobile !== 'string' || !/^\+91[6-9][0-9]{9}$/.test(mobile)) {
    return refused(no(400, 'mobile must be an Indian mobile number in E.164 format'));
  }
  const code = newCode();
  const text = `${code} is your verification code.`;
  const message = account.accept({
    phoneNumber: mobile,
    code,
    text,
    contract: 'sendwithses',
    idempotencyKey: undefined,
  });
  account.openCodeOf(message);
  return { answer: yes({ status: 'sent' }), accepted: true, message };
}

/** `POST /verify-otp`. */
export function verifyBySes(account: Account, { mobile, otp }: Fields): Outcome {
  const live = typeof mobile === 'string' ? account.codesByNumber.get(mobile) : undefined;
  if (live && live.expiresAt <= Date.now()) return refused(no(410, 'The OTP has expired'));
  if (!live || live.used || live.attemptsLeft <= 0)
    return refused(no(400, 'There is no OTP for this number'));
  live.attemptsLeft -= 1;
  if (live.code !== otp) return refused(no(400, 'Invalid OTP'));
  live.used = true;
  return { answer: yes({ verified: true }), accepted: true };
}

/** No shape is published: this one is ours, and a client must be told what to look for in it. */
export function no(status: number, message: string): Answer {
  return { status, body: { success: false, message } };
}

function yes(data: Fields): Answer {
  return { status: 200, body: { success: true, data } };
}
