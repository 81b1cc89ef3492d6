import { randomBytes } from 'node:crypto';
import type { OtpRequest, OtpState } from '../../src/challenges/challenge';
import { madeUpstream } from '../../src/challenges/codes';
import type { RequestId } from '../../src/challenges/request-ids';
import { constantTimeEqual, hmac128 } from '../../src/crypto/mac';
import { ApiError } from '../../src/errors/api-error';
import { isTestNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { FAILURES } from '../../src/providers/failures';
import { UpstreamError } from '../../src/upstream/upstream.error';
import type { Taken, VerifyKey } from './attempts';
import { challengeRecord, numberKey, type Edition } from './edition';
import { refusalOf, requestOf } from './send';
import { windowsOf } from './windows';

type Attempt = Extract<Taken, { kind: 'taken' }>;

/** A number whose code was right, and the challenge that was used up, as `request id:createdAt`. */
export interface VerifiedNumber {
  phoneNumber: PhoneNumber;
  challengeId: string;
}

/** The checks of codes: an attempt is taken before the code is looked at. */
export class Verifications {
  private readonly repeatKey: Buffer;

  constructor(private readonly edition: Edition) {
    this.repeatKey = edition.key('idempotency of verify');
  }

  /**
   * Checks the code of a request. The phone number comes from the challenge, never from the caller: the owner of one number
   * could otherwise log in as another. `variant` is the rest of the body that must be the same in a repeat.
   */
  async verify(
    requestId: string,
    code: string,
    idempotencyKey: string | undefined,
    variant: string,
  ): Promise<VerifiedNumber> {
    const id = this.edition.readRequestId(requestId);
    const key: VerifyKey | undefined =
      idempotencyKey === undefined
        ? undefined
        : {
            field: hmac128(this.repeatKey, `key:${idempotencyKey}`),
            // Bound to this request: otherwise a reader of the store could find the code by guesses of another request.
            fingerprint: hmac128(this.repeatKey, `body:${requestId}:${code}:${variant}`),
            owner: randomBytes(9).toString('base64url'),
          };
    const taken = await this.take(id, key);
    const phoneNumber = this.edition.unseal(taken.phone, challengeRecord(id));
    const verified = (phone: PhoneNumber) => ({
      phoneNumber: phone,
      challengeId: `${id.text}:${taken.createdAt}`,
    });
    // Such a record was written by an attacker with access to the store, or under a secret that was dropped.
    const own = phoneNumber !== undefined && this.edition.phones.pseudonymOf(phoneNumber) === id.pseudonym;
    try {
      if (!own) throw new ApiError('otp_expired');
      if (taken.kind === 'replay') return verified(phoneNumber);
      if (!(await this.check(id, taken, phoneNumber, code))) {
        throw new ApiError('otp_incorrect', { attemptsLeft: taken.attemptsLeft });
      }
      const { failure, createdAt } = taken;
      const consume = { own: id.own, failure, createdAt, key };
      const { consumed } = await this.edition.run(numberKey(id), 'consume', consume);
      if (!consumed) throw new ApiError('otp_expired');
      return verified(phoneNumber);
    } catch (error) {
      if (key && error instanceof ApiError) await this.keep(id, key, error);
      throw error;
    }
  }

  /** The state of a request. Throws `otp_expired` for an id that is unknown. */
  async status(requestId: string): Promise<OtpRequest & { state: OtpState }> {
    const id = this.edition.readRequestId(requestId);
    const answer = await this.edition.run(numberKey(id), 'status', { own: id.own });
    if (answer.state === 'unknown') throw new ApiError('otp_expired');
    return { ...requestOf(id, answer), state: answer.state };
  }

  private async take(id: RequestId, key: VerifyKey | undefined) {
    const { edition } = this;
    const { leaseMs } = edition;
    const failed = windowsOf(edition.settings.limitFailedCodes);
    const command = { own: id.own, key, leaseMs, failed };
    const taken = await edition.untilFree(() => edition.run(numberKey(id), 'take', command));
    switch (taken.kind) {
      case 'taken':
      case 'replay':
        return taken;
      case 'expired':
        throw new ApiError('otp_expired');
      case 'exhausted':
        throw new ApiError('otp_attempts_exhausted', { attemptsLeft: 0 });
      case 'other_body':
        throw new ApiError('idempotency_key_reused');
      case 'incorrect':
        throw new ApiError('otp_incorrect', { attemptsLeft: taken.attemptsLeft });
      default:
        throw new ApiError('phone_locked', { retryAfterSeconds: ('ms' in taken ? taken.ms : 0) / 1_000 });
    }
  }

  private async check(id: RequestId, taken: Attempt, phone: PhoneNumber, code: string): Promise<boolean> {
    const { codes, upstream } = this.edition;
    if (isTestNumber(phone)) {
      const testCode = this.edition.testCode(phone);
      if (testCode === undefined) throw new ApiError('otp_expired');
      return constantTimeEqual(code, testCode);
    }
    if (!madeUpstream(taken.nonce)) return codes.matches(phone, taken.nonce, code);
    try {
      return await upstream.verifyOtp(taken.upstreamId, code);
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      // Only if upstream certainly did not check the code: a caller that can cause other errors would guess for free.
      if (error.accepted === 'no' && FAILURES[error.reason].notChecked === true) {
        const { failure, createdAt } = taken;
        const attempt = { own: id.own, failure, createdAt };
        await this.edition.run(numberKey(id), 'giveBack', attempt).catch(() => undefined);
      }
      throw refusalOf(error);
    }
  }

  /** Keeps the answer for repeats under the Idempotency-Key; a failure of the service releases the key. */
  private async keep(id: RequestId, key: VerifyKey, error: ApiError): Promise<void> {
    const kept = error.code === 'otp_incorrect' || error.status === 410;
    const outcome = kept ? `${error.status}:${error.attemptsLeft ?? 0}` : undefined;
    await this.edition
      .run(numberKey(id), 'storeOutcome', { own: id.own, key, outcome })
      .catch(() => undefined);
  }
}
