import { Injectable } from '@nestjs/common';
import { Audit } from '../audit/audit';
import { Config } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { AbuseControl } from '../abuse/abuse-control';
import { Ledger } from '../ledger/ledger';
import { readSms } from '../ledger/sms';
import { Metrics } from '../metrics/metrics';
import { PhoneIdentities } from '../phone-number/phone-identity';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import { networkOf } from '../net/addresses';
import { Attempts, type Attempt } from '../challenges/attempts';
import { Challenges } from '../challenges/challenges';
import { RequestIds } from '../challenges/request-ids';
import { newOwner, type VerifyIdempotency } from '../challenges/idempotency-lock';
import { Deliveries } from './deliveries';
import { DeviceTokens } from '../devices/device-tokens';
import { ProviderError } from '../providers/otp-provider';
import type { OtpRequest, OtpState } from '../challenges/challenge';
import { counted, startOutcomes } from './outcomes';
import { Providers } from '../providers/providers';
import { Sends, type ClientContext } from './sends';

export type { ClientContext } from './sends';

/**
 * A phone number with a verified code. A session is opened for it. Only {@link OtpService.verify} can make one: the
 * class is exported as a type, and its private field lets no other object pass for it, so code that opens a session
 * for an unverified number does not compile.
 */
class VerifiedPhone {
  readonly #verified = true;

  constructor(
    readonly phoneNumber: PhoneNumber,
    /** The challenge that was used up, as `request id:createdAt`: a session derives its id from it. */
    readonly challengeId: string,
  ) {}

  get verified(): true {
    return this.#verified;
  }
}
export type { VerifiedPhone };

/** The two operations of the domain: request a code for a phone number, verify the code that came back. */
@Injectable()
export class OtpService {
  private readonly repeatKey: Buffer;

  constructor(
    private readonly config: Config,
    private readonly sends: Sends,
    private readonly challenges: Challenges,
    private readonly attempts: Attempts,
    private readonly requestIds: RequestIds,
    private readonly abuse: AbuseControl,
    private readonly phones: PhoneIdentities,
    private readonly devices: DeviceTokens,
    private readonly deliveries: Deliveries,
    private readonly ledger: Ledger,
    private readonly providers: Providers,
    private readonly metrics: Metrics,
    private readonly audit: Audit,
  ) {
    this.repeatKey = deriveKey(config.subjectSecret, 'idempotency of verify');
    startOutcomes(metrics);
  }

  /**
   * Sends a code to a phone number that is neither locked nor over a limit, and creates a challenge for it. Everything that
   * upstream is told is in the store before the call. Under an Idempotency-Key a repeat gets the first answer and sends
   * nothing, or resumes a send that failed, with the same code under the same upstream key.
   * Throws {@link ApiError}; `challenge_required` carries a proof of work to be solved.
   */
  async request(phone: PhoneNumber, context: ClientContext): Promise<OtpRequest> {
    // It has the form of a test number, so it is no subscriber's number.
    if (isTestNumber(phone) && this.config.testCode(phone) === undefined) {
      const message = 'phoneNumber is no test number of this service';
      throw new ApiError('validation_failed', { errors: [{ field: 'phoneNumber', message }] });
    }
    const sent = this.sends.send(phone, context);
    return counted(this.metrics.sends, sent, ({ delivery }) => delivery);
  }

  /** The state of a request, for the page that waits for its code. Throws `otp_expired` for an unknown id. */
  async status(requestId: string): Promise<OtpRequest & { state: OtpState }> {
    const { lookup, ...status } = await this.challenges.status(requestId);
    if (lookup) this.deliveries.refresh(lookup);
    return status;
  }

  /**
   * Checks the code of this request, and returns the proof. The phone number comes from the challenge, never from the
   * caller: the owner of one number could otherwise log in as another.
   * Under an Idempotency-Key a repeat gets the first answer; a right code is replayed for a minute. `variant` is the rest of
   * the body that must be the same in a repeat.
   * Throws {@link ApiError} `otp_incorrect`, `otp_expired`, `otp_attempts_exhausted`, `phone_locked`,
   * `idempotency_key_reused`, `idempotency_in_progress`, or a fault.
   */
  async verify(
    requestId: string,
    code: string,
    context: ClientContext,
    variant = '',
  ): Promise<VerifiedPhone> {
    const { idempotencyKey } = context;
    const repeat =
      idempotencyKey === undefined
        ? undefined
        : {
            field: this.keyed(`key:${idempotencyKey}`),
            // Bound to this request: otherwise a reader of the store could find the code by verifying guesses of a request
            // of his own.
            fingerprint: this.keyed(`body:${requestId}:${code}:${variant}`),
            owner: newOwner(),
          };
    const checked = this.verifyOnce(requestId, code, context, repeat);
    return counted(this.metrics.verifications, checked, () => 'verified');
  }

  /** Counts a verification from the client address that opened the challenge; see {@link Challenges.countAtOrigin}. */
  countAtOrigin(requestId: string, address: string): Promise<boolean> {
    return this.challenges.countAtOrigin(requestId, address);
  }

  /** Whether this is a device token of the number of this request. */
  hasDevice(requestId: string, deviceToken: string | undefined): boolean {
    const id = deviceToken === undefined ? undefined : this.requestIds.open(requestId);
    return id !== undefined && this.devices.read(deviceToken, id.pseudonym) !== undefined;
  }

  /**
   * A token for the device on which the number was verified, with the session that was opened there: strangers cannot use
   * up its allowance. It is no login.
   */
  deviceToken({ phoneNumber }: VerifiedPhone, sessionId: string, authenticatedAt: Date): string {
    const device = { id: sessionId, issuedAt: authenticatedAt.getTime() };
    return this.devices.issue(this.phones.pseudonymOf(phoneNumber), device);
  }

  private async verifyOnce(
    requestId: string,
    code: string,
    context: ClientContext,
    repeat?: VerifyIdempotency,
  ): Promise<VerifiedPhone> {
    const deviceOf = (pseudonym: string) => this.devices.read(context.deviceToken, pseudonym);
    // Taken before the code is checked, so that a crash in between cannot give it back.
    const attempt = await this.attempts.take(requestId, repeat, deviceOf);
    const verified = new VerifiedPhone(attempt.phone, `${attempt.id.text}:${attempt.createdAt}`);
    if (attempt.kind === 'replay') return verified;
    try {
      if (!(await this.checkCode(attempt, code))) {
        this.auditFailure(attempt, context);
        this.recordCode(attempt, context, false);
        throw new ApiError('otp_incorrect', { attemptsLeft: attempt.attemptsLeft });
      }
      if (!(await this.attempts.consume(attempt, repeat))) throw new ApiError('otp_expired');
      this.recordCode(attempt, context, true);
      return verified;
    } catch (error) {
      if (repeat && error instanceof ApiError) await this.attempts.storeOutcome(attempt.id, repeat, error);
      throw error;
    }
  }

  private auditFailure(
    { phone: number, attemptsLeft, allowance, lockMs }: Attempt,
    { address }: ClientContext,
  ): void {
    const who = { phone: this.phones.pseudonymOf(number), network: networkOf(address) };
    this.audit.record({ audit: 'code.failed', ...who, attemptsLeft });
    const seconds = Math.ceil(lockMs / 1_000);
    if (seconds > 0) this.audit.record({ audit: 'number.locked', ...who, allowance, seconds });
  }

  /**
   * Any code counts where its SMS was requested and where it was tried: an attacker that enters guesses from elsewhere
   * must not hide the range that it requests from.
   */
  private recordCode(attempt: Attempt, { address }: ClientContext, right: boolean): void {
    const { phone, sms: text, sinceLastFailureMs } = attempt;
    if (isTestNumber(phone)) return;
    const sms = readSms(text);
    const requested = sms ? this.abuse.scopesOf(phone, sms.network) : [];
    const tried = [...new Set([...requested, ...this.abuse.scopesOf(phone, networkOf(address))])];
    if (!right) this.ledger.record({ what: 'wrong', quiet: sinceLastFailureMs, tried });
    else if (sms) {
      const provider = this.providers.of(attempt)?.name;
      if (provider !== undefined) this.metrics.smsVerified.inc({ provider });
      this.ledger.record({ what: 'verified', sms: sms.entry, at: sms.at, scopes: requested, tried });
    }
  }

  /** Keyed: from a dump of the store, a bare hash of a body with a six-digit code is guessed in a second. */
  private keyed(text: string): string {
    return hmac128(this.repeatKey, text);
  }

  private async checkCode(attempt: Attempt, code: string): Promise<boolean> {
    const provider = this.providers.of(attempt);
    if (provider === undefined) throw new ApiError('otp_expired');
    try {
      return await provider.verify(attempt, code);
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      // If Redis fails, the attempt stays taken, which is the safe side.
      if (error.accepted === 'no') await this.attempts.giveBack(attempt).catch(() => undefined);
      throw error.refusal;
    }
  }
}
