import { createHmac } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../config/derived-keys';
import { ApiError } from '../errors/api-error';
import { Metrics } from '../metrics/metrics';
import type { PhoneNumber } from '../phone-number/phone-number';
import { Admission, type Admitted } from '../throttling/admission';
import { Attempts, type Attempt, type Repeat } from './attempts';
import { Challenges, type OtpRequest, type OtpState } from './challenges';
import { OTP_PROVIDER, ProviderError, type OtpProvider } from './otp-provider';

/**
 * A phone number whose code came back: what a session is opened for. Only {@link OtpService.verify} can make one: the
 * class is exported as a type, and its private field lets no other object pass for it, so code that opens a session
 * for an unverified number does not compile.
 */
class VerifiedPhone {
  readonly #verified = true;

  constructor(
    readonly phoneNumber: PhoneNumber,
    /** The challenge that was used up; a session derives its id from it. */
    readonly challengeId: string,
  ) {}

  get verified(): true {
    return this.#verified;
  }
}
export type { VerifiedPhone };

/** The domain's two verbs: request a code for a phone number, verify the code that came back. */
@Injectable()
export class OtpService {
  private readonly idempotencyKey: Buffer;
  private readonly repeatKey: Buffer;

  constructor(
    config: Config,
    private readonly challenges: Challenges,
    private readonly attempts: Attempts,
    private readonly admission: Admission,
    @Inject(OTP_PROVIDER) private readonly provider: OtpProvider,
    private readonly metrics: Metrics,
  ) {
    this.idempotencyKey = deriveKey(config.subjectSecret, 'upstream idempotency key');
    this.repeatKey = deriveKey(config.subjectSecret, 'idempotency of verify');
  }

  /**
   * Sends a code to a phone number that is neither locked nor over a limit, and opens a challenge for it. What upstream
   * must be told is in the store before its first byte leaves. Under an Idempotency-Key a repeat gets the first answer
   * and sends nothing, or resumes what failed with the same code under the same key of upstream.
   * Throws {@link ApiError}.
   */
  async request(phone: PhoneNumber, idempotencyKey?: string): Promise<OtpRequest> {
    const record = idempotencyKey === undefined ? undefined : this.keyed(`send:${idempotencyKey}`);
    return counted(this.metrics.sends, this.sendCode(phone, record), ({ delivery }) => delivery);
  }

  private async sendCode(phone: PhoneNumber, record?: string): Promise<OtpRequest> {
    const begun = await this.challenges.begin(phone, this.provider.resendsCode, record);
    if ('delivery' in begun) return begun;
    const { requestId, pseudonym, nonce, lifeSeconds, resumed } = begun;
    let fresh: Admitted | undefined;
    try {
      // What may have been sent under this key was counted then.
      if (resumed === undefined) fresh = await this.admission.admit(pseudonym);
      const sent = await this.provider.send({
        phone,
        nonce,
        lifeSeconds,
        idempotencyKey: this.keyOf(requestId),
      });
      if (sent.delivery !== 'unknown') this.metrics.walletExhausted.set(0);
      return await this.challenges.finish(requestId, sent, (resumed ?? fresh)?.resendAfterMs ?? 0, record);
    } catch (error) {
      const failure = error instanceof ProviderError ? error : undefined;
      const admitted = resumed ?? fresh;
      const unsent = admitted === undefined || (failure?.accepted === 'no' && resumed === undefined);
      if (unsent && fresh) await tidy(this.admission.refund(fresh));
      // A pending challenge verifies nothing. Under a key it waits for the repeat, else it is removed or expires.
      if (record) {
        // Where upstream ignores keys, a repeat is another SMS, and is counted as one.
        const counted = unsent || this.provider.resendsCode ? undefined : admitted.resendAfterMs;
        await tidy(this.challenges.release(requestId, record, counted));
      }
      if (!record && admitted === undefined) await tidy(this.challenges.abandon(requestId));
      throw failure?.refusal ?? error;
    }
  }

  /** How a request stands; for the page that waits for its code. Throws `otp_expired` for an id that is not ours. */
  async status(requestId: string): Promise<OtpRequest & { state: OtpState }> {
    return this.challenges.status(requestId);
  }

  /**
   * Answers whether this is the code of this request, and returns the proof. The phone number comes from the
   * challenge, never from the caller: who owns one number could otherwise log in as another.
   * Under an Idempotency-Key a repeat gets the first answer, for a minute where it was right: `variant` is whatever
   * else makes it the same request.
   * Throws {@link ApiError} `otp_incorrect`, `otp_expired`, `otp_attempts_exhausted`, `phone_locked`,
   * `idempotency_key_reused`, `idempotency_in_progress`, or a fault.
   */
  async verify(
    requestId: string,
    code: string,
    idempotencyKey?: string,
    variant = '',
  ): Promise<VerifiedPhone> {
    const repeat =
      idempotencyKey === undefined
        ? undefined
        : {
            field: this.keyed(`key:${idempotencyKey}`),
            // Of this request: else who sees the store could look a code up by a guess of his own.
            fingerprint: this.keyed(`body:${requestId}:${code}:${variant}`),
          };
    return counted(this.metrics.verifications, this.checkCode(requestId, code, repeat), () => 'verified');
  }

  private async checkCode(requestId: string, code: string, repeat?: Repeat): Promise<VerifiedPhone> {
    // Taken before we looked, so that a crash in between cannot give it back.
    const attempt = await this.attempts.take(requestId, repeat);
    if (attempt.wasRight) return new VerifiedPhone(attempt.phone, requestId);
    try {
      const verified = await this.look(requestId, attempt, code);
      if (!verified) throw new ApiError('otp_incorrect', { attemptsLeft: attempt.attemptsLeft });
      if (!(await this.attempts.consume(requestId, attempt, repeat))) throw new ApiError('otp_expired');
      return new VerifiedPhone(attempt.phone, requestId);
    } catch (error) {
      if (repeat && error instanceof ApiError) await tidy(this.attempts.settle(requestId, repeat, error));
      throw error;
    }
  }

  /** Keyed: a bare hash of a body with a six-digit code in it is guessed in a second from a dump. */
  private keyed(text: string): string {
    return createHmac('sha256', this.repeatKey).update(text).digest('base64url').slice(0, 22);
  }

  private async look(requestId: string, attempt: Attempt, code: string): Promise<boolean> {
    try {
      return await this.provider.verify(attempt, code);
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      if (error.accepted === 'no') await tidy(this.attempts.giveBack(requestId, attempt));
      throw error.refusal;
    }
  }

  /** Derived, so that a repeat of this send finds the same key, and upstream never learns the request id. */
  private keyOf(requestId: string): string {
    return createHmac('sha256', this.idempotencyKey).update(requestId).digest('hex').slice(0, 32);
  }
}

/** Counts how a step ended: what it answered, or the code of its error. */
async function counted<Answer>(
  counter: Metrics['sends'],
  step: Promise<Answer>,
  outcomeOf: (answer: Answer) => string,
): Promise<Answer> {
  try {
    const answer = await step;
    counter.inc({ outcome: outcomeOf(answer) });
    return answer;
  } catch (error) {
    counter.inc({ outcome: error instanceof ApiError ? error.code : 'internal_error' });
    throw error;
  }
}

/**
 * For a step that follows a refusal: should the store fail it, the refusal is told all the same. The store has logged
 * it, and what stays undone errs on the safe side: a price stays charged, an attempt stays taken.
 */
async function tidy(step: Promise<unknown>): Promise<void> {
  await step.catch(() => undefined);
}
