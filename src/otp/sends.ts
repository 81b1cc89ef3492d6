import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { AbuseControl } from '../abuse/abuse-control';
import { ProofOfWork } from '../abuse/proof-of-work';
import { Ledger } from '../ledger/ledger';
import { readSms, writeSms } from '../ledger/sms';
import { aboutNumber } from '../logging/request-context';
import { Metrics } from '../metrics/metrics';
import { PhoneIdentities } from '../phone-number/phone-identity';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import { AdmissionControl, type Admission, type SendRetry } from '../throttling/admission';
import { networkOf, originOf } from '../net/addresses';
import { Challenges, type PendingChallenge } from '../challenges/challenges';
import type { Repeated } from '../challenges/idempotency-lock';
import { DeviceTokens } from '../devices/device-tokens';
import { Failover, type SendAttempt } from './failover';
import type { Sent } from '../challenges/challenge';
import { ProviderError } from '../providers/otp-provider';
import type { OtpRequest } from '../challenges/challenge';
import { Providers } from '../providers/providers';
import { bestEffort } from './tidy';

/** Who asks, as far as limits and the abuse control want to know. */
export interface ClientContext {
  /** The client's address. */
  address: string;
  /** A token that an earlier login with this number left on the device. One that is not good is none. */
  deviceToken?: string | undefined;
  /** The solution of a proof of work. One that is not good is none. */
  solution?: string | undefined;
  idempotencyKey?: string | undefined;
}

/** The way of one SMS: a pending challenge, admission, the provider, an open challenge. */
@Injectable()
export class Sends {
  private readonly idempotencyKey: Buffer;

  constructor(
    config: Config,
    private readonly challenges: Challenges,
    private readonly admissionControl: AdmissionControl,
    private readonly abuse: AbuseControl,
    private readonly proofOfWork: ProofOfWork,
    private readonly devices: DeviceTokens,
    private readonly phones: PhoneIdentities,
    private readonly ledger: Ledger,
    private readonly providers: Providers,
    private readonly failover: Failover,
    private readonly metrics: Metrics,
  ) {
    this.idempotencyKey = deriveKey(config.subjectSecret, 'upstream idempotency key');
  }

  /**
   * Sends a code through the first provider that takes it. `record` says where the answer is kept for repeats under an
   * Idempotency-Key. Throws {@link ApiError}.
   */
  async send(phone: PhoneNumber, context: ClientContext, record?: Repeated): Promise<OtpRequest> {
    const identity = this.phones.of(phone);
    aboutNumber(identity.pseudonym);
    const device = this.devices.read(context.deviceToken, identity.pseudonym);
    const [first, ...others] = this.providers.inOrder(phone);
    const begun = await this.challenges.create(identity, first, record, device);
    if ('delivery' in begun) return begun;
    const { requestId, pseudonym, nonce, lifeSeconds, maybeSent, codeReplaced } = begun;
    // Who may have sent it before is asked again, and nobody else.
    const turn: SendAttempt = { provider: first, nonce, lifeSeconds, others: maybeSent ? [] : others };
    let admission: Admission | undefined;
    try {
      if (maybeSent) turn.provider = this.providers.of({ ...begun, phone }) ?? gone();
      // Where upstream ignores keys, what may have been sent is not sent again: it would be a second SMS.
      const mayResend = !maybeSent || turn.provider.supportsIdempotencyKeys;
      const repeat = record && { of: requestId, fencingToken: begun.fencingToken, mayResend };
      admission = await this.admit(phone, begun, context, turn.provider.name, repeat);
      const tells = admission?.again === true && !mayResend;
      const sent: Sent = tells
        ? { delivery: 'unknown' }
        : await this.failover.send(turn, {
            phone,
            requestId,
            idempotencyKey: this.keyOf(requestId),
            record,
            sms: admission?.sms,
          });
      if (admission && !(admission.again && maybeSent))
        this.metrics.smsSent.inc({ provider: turn.provider.name });
      const sms = admission ? writeSms({ ...admission.sms, message: sent.messageId ?? '' }) : '';
      this.record(sent, sms);
      const resendAfterMs = await this.resendAfter(pseudonym, sent, admission);
      return await this.challenges.activate(
        requestId,
        sent,
        resendAfterMs,
        record,
        sms,
        !(tells && codeReplaced),
      );
    } catch (error) {
      const failure = error instanceof ProviderError ? error : undefined;
      const sentBefore = maybeSent && admission?.again === true;
      const unsent = admission === undefined || (failure?.accepted === 'no' && !sentBefore);
      if (admission && !sentBefore && failure?.accepted === 'unknown')
        this.metrics.smsSent.inc({ provider: turn.provider.name });
      if (unsent && admission) await bestEffort(this.admissionControl.refund(admission));
      // A pending challenge verifies nothing. Under a key it waits for the repeat, else it is removed or expires.
      if (record) await this.challenges.release(requestId, record, unsent && !maybeSent);
      else if (admission === undefined) await bestEffort(this.challenges.abandon(requestId));
      throw failure?.refusal ?? error;
    }
  }

  /** Undefined for a test number: it costs nothing, and counts for nothing. */
  private async admit(
    phone: PhoneNumber,
    { pseudonym, byDevice, returning }: PendingChallenge,
    { address, solution }: ClientContext,
    provider: string,
    repeat: SendRetry | undefined,
  ): Promise<Admission | undefined> {
    if (isTestNumber(phone)) return undefined;
    const origin = originOf(address);
    const network = networkOf(address);
    const admissionRequest = {
      pseudonym,
      byDevice,
      returning,
      network,
      scopes: this.abuse.scopesOf(phone, network),
      provider,
      repeat,
      solution: solution === undefined ? undefined : await this.proofOfWork.check(solution, phone, origin),
    };
    try {
      return await this.admissionControl.admit(admissionRequest);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'challenge_required') throw error;
      throw new ApiError(error.code, { proofOfWork: await this.proofOfWork.challenge(phone, origin) });
    }
  }

  /** An SMS that failed at once does not count against the person's resends, as one that fails later does not. */
  private async resendAfter(
    pseudonym: string,
    { delivery }: Sent,
    admission: Admission | undefined,
  ): Promise<number> {
    const { resendAfterMs = 0, sms } = admission ?? {};
    if (delivery !== 'failed' || sms === undefined) return resendAfterMs;
    return (await this.admissionControl.uncountFailedSms(pseudonym, sms)) ?? resendAfterMs;
  }

  /** What is known of its fate already. */
  private record({ delivery }: Sent, text: string): void {
    const sms = readSms(text);
    if (sms === undefined || delivery === 'accepted' || delivery === 'sent') return;
    this.ledger.record({ what: 'delivery', sms: sms.entry, at: sms.at, delivery, cost: 0 });
  }

  /** Derived, so that a repeat of this send finds the same key, and upstream never learns the request id. */
  private keyOf(requestId: string): string {
    return hmac128(this.idempotencyKey, requestId);
  }
}

/** The provider that may have sent it is configured no more: its code could never be checked. */
function gone(): never {
  throw new ApiError('upstream_unavailable');
}
