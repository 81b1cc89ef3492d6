import { randomBytes } from 'node:crypto';
import type { Delivery, OtpRequest } from '../../src/challenges/challenge';
import type { RequestId } from '../../src/challenges/request-ids';
import { hmac128 } from '../../src/crypto/mac';
import { ApiError } from '../../src/errors/api-error';
import { isTestNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { deliveryOf, FAILURES } from '../../src/providers/failures';
import { UpstreamError } from '../../src/upstream/upstream.error';
import { challengeRecord, CODE_LIFE_MS, numberKey, SERVICE_KEY, type Edition } from './edition';
import { log } from './log';
import type { Begun } from './number';
import { windowsOf } from './windows';

/** A draft in the hands of this request. */
type Draft = Extract<Begun, { kind: 'new' | 'resumed' }> & { id: RequestId; owner: string };

interface Sent {
  delivery: Delivery;
  upstreamId?: string | undefined;
  expiresAt?: Date | undefined;
  attemptsLeft?: number | undefined;
}

/** The public error of a fault of the provider, with one line in the log. `alert` marks a fault that an operator must mend. */
export function refusalOf(error: UpstreamError): ApiError {
  const { code, alert, retryAfterSeconds } = FAILURES[error.reason];
  log(alert === undefined ? 'warn' : 'error', 'The provider refused or failed', {
    ...{ alert, reason: error.reason, upstreamStatus: error.status },
    ...{ upstreamRequestId: error.correlationId, upstreamMessage: error.upstreamMessage },
  });
  const wait = error.retryAfterSeconds ?? retryAfterSeconds;
  return new ApiError(code, { cause: error, ...(wait === undefined ? {} : { retryAfterSeconds: wait }) });
}

/** The way of one SMS: begin, admit, send, activate; or release. */
export class Sends {
  private readonly upstreamKey: Buffer;

  constructor(private readonly edition: Edition) {
    this.upstreamKey = edition.key('upstream idempotency key');
  }

  /** Sends a code to a number, or answers as the first request under the Idempotency-Key did. Throws {@link ApiError}. */
  async send(phone: PhoneNumber, idempotencyKey: string | undefined): Promise<OtpRequest> {
    const { edition } = this;
    if (isTestNumber(phone) && edition.testCode(phone) === undefined) {
      const message = 'phoneNumber is no test number of this service';
      throw new ApiError('validation_failed', { errors: [{ field: 'phoneNumber', message }] });
    }
    const id = edition.requestIds.issue(edition.phones.of(phone), idempotencyKey);
    const begun = await this.begin(id, phone);
    if (begun.kind === 'replay') return requestOf(id, begun);
    if (begun.kind === 'locked') throw new ApiError('phone_locked', { retryAfterSeconds: begun.ms / 1_000 });
    if (begun.kind === 'limited') throw new ApiError('rate_limited', { retryAfterSeconds: begun.ms / 1_000 });
    return this.carryOut({ ...begun, id, owner: begun.owner }, phone);
  }

  private async begin(id: RequestId, phone: PhoneNumber) {
    const { edition } = this;
    const { settings } = edition;
    const owner = randomBytes(9).toString('base64url');
    const begun = await edition.untilFree(async () =>
      edition.run(numberKey(id), 'begin', {
        own: id.own,
        owner,
        leaseMs: edition.leaseMs,
        nonce: edition.codes.nonceFor({ resendsCode: this.makesCode(phone) }),
        resend: this.makesCode(phone),
        secrets: edition.codeKeys.ids,
        ttlMs: settings.otpTtlSeconds * 1_000,
        lifeMs: CODE_LIFE_MS,
        attempts: settings.otpMaxAttempts,
        phone: edition.seal(phone, challengeRecord(id)),
        counted: !isTestNumber(phone),
        sends: windowsOf(settings.limitPhone),
        failed: windowsOf(settings.limitFailedCodes),
      }),
    );
    return { ...begun, owner };
  }

  private makesCode(phone: PhoneNumber): boolean {
    return isTestNumber(phone) || this.edition.settings.startMessagingContract === 'caller';
  }

  private async carryOut(draft: Draft, phone: PhoneNumber): Promise<OtpRequest> {
    let quarter: number | undefined;
    let fate: 'refused' | 'no' | 'maybe' = 'refused';
    try {
      if (isTestNumber(phone)) return await this.activate(draft, { delivery: 'delivered' });
      // An SMS may be on its way, and a repeat at a provider that ignores idempotency keys would be a second SMS.
      if (draft.maybeSent && this.makesCode(phone))
        return await this.activate(draft, { delivery: 'unknown' });
      quarter = draft.charged ? undefined : await this.admit();
      fate = 'maybe';
      const sent = await this.callUpstream(draft, phone);
      return await this.activate(draft, sent);
    } catch (error) {
      const certainlyNot = error instanceof UpstreamError && error.accepted === 'no';
      // An earlier request under the key may have sent it, whatever became of this call.
      if (fate === 'maybe' && certainlyNot && !draft.maybeSent) fate = 'no';
      // The price goes back only if certainly nothing was sent. If the store fails, it stays charged, which is the safe side.
      if (fate === 'no' && quarter !== undefined) await this.refund(quarter);
      const charged = fate === 'maybe';
      const { id, owner } = draft;
      const release = { own: id.own, owner, sent: fate, charged };
      // If the store fails, the lease runs out by itself.
      await this.edition.run(numberKey(id), 'release', release).catch(() => undefined);
      throw error instanceof UpstreamError ? refusalOf(error) : error;
    }
  }

  /** Counts the SMS for the whole service, and charges it. Throws `overloaded` or `sms_unavailable`. */
  private async admit(): Promise<number> {
    const { limitGlobal, smsPricePaise, budgetPaisePerDay = 0 } = this.edition.settings;
    const command = { windows: windowsOf(limitGlobal), pricePaise: smsPricePaise, budgetPaisePerDay };
    const admitted = await this.edition.run(SERVICE_KEY, 'admit', command);
    if (admitted.kind === 'admitted') return admitted.quarter;
    if (admitted.kind === 'budget') {
      log('error', 'The SMS budget is used up until it has room again', { alert: 'budget_exhausted' });
    }
    const code = admitted.kind === 'budget' ? 'sms_unavailable' : 'overloaded';
    throw new ApiError(code, { retryAfterSeconds: admitted.ms / 1_000 });
  }

  private async refund(quarter: number): Promise<void> {
    const command = { quarter, pricePaise: this.edition.settings.smsPricePaise };
    await this.edition.run(SERVICE_KEY, 'refund', command).catch(() => undefined);
  }

  private async callUpstream(
    { id, createdAt, nonce, lifeMs }: Draft,
    phoneNumber: PhoneNumber,
  ): Promise<Sent> {
    const { upstream, codes } = this.edition;
    // Derived, so that a repeat of this send has the same key, and upstream never learns the request id.
    const idempotencyKey = hmac128(this.upstreamKey, `${id.text}:${createdAt}`);
    if (!this.makesCode(phoneNumber)) {
      // Without upstream's id the code could not be checked, so an unknown outcome is a failure here.
      const sent = await upstream.sendOtp(phoneNumber, idempotencyKey);
      const { expiresAt, attemptsLeft } = sent;
      return { delivery: 'accepted', upstreamId: sent.id, expiresAt, attemptsLeft };
    }
    try {
      const code = codes.derive(phoneNumber, nonce);
      const expiryMinutes = Math.max(1, Math.floor(lifeMs / 60_000));
      const sent = await upstream.sendCode({ phoneNumber, code, expiryMinutes, idempotencyKey });
      return { delivery: deliveryOf(sent.status), upstreamId: sent.id };
    } catch (error) {
      // The SMS may be on its way, and a repeat would be a second SMS and a second charge: the code works if it arrives.
      if (!(error instanceof UpstreamError) || error.accepted === 'no') throw error;
      refusalOf(error);
      return { delivery: 'unknown' };
    }
  }

  private async activate(draft: Draft, sent: Sent): Promise<OtpRequest> {
    const { id, owner, resendAfterMs } = draft;
    const active = await this.edition.run(numberKey(id), 'activate', {
      own: id.own,
      owner,
      upstreamId: sent.upstreamId ?? '',
      delivery: sent.delivery,
      expiresAt: sent.expiresAt?.getTime() ?? -1,
      attempts: sent.attemptsLeft ?? -1,
      resendAfterMs,
      lifeMs: CODE_LIFE_MS,
    });
    if (active.kind === 'gone') throw new ApiError('store_unavailable');
    // A repeat resumed the send, and answers it.
    if (active.kind === 'superseded') throw new ApiError('idempotency_in_progress', { retryAfterSeconds: 1 });
    return requestOf(id, { ...active, delivery: sent.delivery });
  }
}

/** The answer to a client about a challenge. */
export function requestOf(
  { text }: { text: string },
  standing: { expiresAt: number; attemptsLeft: number; resendAt: number; delivery: Delivery },
): OtpRequest {
  const { expiresAt, attemptsLeft, resendAt, delivery } = standing;
  return {
    requestId: text,
    expiresAt: new Date(expiresAt),
    attemptsLeft,
    resendAt: new Date(resendAt),
    delivery,
  };
}
