import { createHmac } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { deriveKey } from '../config/derived-keys';
import { ApiError } from '../errors/api-error';
import { Guard } from '../guard/guard';
import { ProofOfWork } from '../guard/proof-of-work';
import { Ledger } from '../ledger/ledger';
import { readSms, writeSms } from '../ledger/sms';
import { aboutNumber } from '../logging/request-context';
import { Metrics } from '../metrics/metrics';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import { Admission } from '../throttling/admission';
import type { Admitted, Repeat } from '../throttling/applicant';
import { networkOf, originOf } from '../throttling/client-address';
import { Challenges, type PendingChallenge } from './challenges';
import type { Repeated } from './claims';
import { DeviceTokens } from './device-tokens';
import { Failover, type Turn } from './failover';
import { Numbers } from './numbers';
import { ProviderError, type Sent } from './otp-provider';
import type { OtpRequest } from './otp-request';
import { PendingChallenges } from './pending-challenges';
import { Providers } from './providers';
import { tidy } from './tidy';

/** Who asks, as far as limits and the guard want to know. */
export interface Asker {
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
    private readonly pending: PendingChallenges,
    private readonly admission: Admission,
    private readonly guard: Guard,
    private readonly proofOfWork: ProofOfWork,
    private readonly devices: DeviceTokens,
    private readonly numbers: Numbers,
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
  async send(phone: PhoneNumber, asker: Asker, record?: Repeated): Promise<OtpRequest> {
    const known = this.numbers.pseudonymOf(phone);
    aboutNumber(known);
    const device = this.devices.read(asker.deviceToken, known);
    const [first, ...others] = this.providers.inOrder(phone);
    const begun = await this.challenges.begin(phone, first, record, device);
    if ('delivery' in begun) return begun;
    const { requestId, pseudonym, nonce, lifeSeconds, bound, renewed } = begun;
    // Who may have sent it before is asked again, and nobody else.
    const turn: Turn = { provider: first, nonce, lifeSeconds, others: bound ? [] : others };
    let admitted: Admitted | undefined;
    try {
      if (bound) turn.provider = this.providers.of({ ...begun, phone }) ?? gone();
      // Where upstream ignores keys, what may have been sent is not sent again: it would be a second SMS.
      const sendsAgain = !bound || turn.provider.knowsRepeats;
      const repeat = record && { of: requestId, turn: begun.turn, sendsAgain };
      admitted = await this.admit(phone, begun, asker, turn.provider.name, repeat);
      const tells = admitted?.again === true && !sendsAgain;
      const sent: Sent = tells
        ? { delivery: 'unknown' }
        : await this.failover.send(turn, {
            phone,
            requestId,
            idempotencyKey: this.keyOf(requestId),
            record,
            sms: admitted?.sms,
          });
      if (admitted && !(admitted.again && bound)) this.metrics.smsSent.inc({ provider: turn.provider.name });
      const sms = admitted ? writeSms({ ...admitted.sms, message: sent.messageId ?? '' }) : '';
      this.record(sent, sms);
      const resendAfterMs = await this.resendAfter(pseudonym, sent, admitted);
      return await this.challenges.finish(requestId, sent, resendAfterMs, record, sms, !(tells && renewed));
    } catch (error) {
      const failure = error instanceof ProviderError ? error : undefined;
      const sentBefore = bound && admitted?.again === true;
      const unsent = admitted === undefined || (failure?.accepted === 'no' && !sentBefore);
      if (admitted && !sentBefore && failure?.accepted === 'unknown')
        this.metrics.smsSent.inc({ provider: turn.provider.name });
      if (unsent && admitted) await tidy(this.admission.refund(admitted));
      // A pending challenge verifies nothing. Under a key it waits for the repeat, else it is removed or expires.
      if (record) await this.pending.release(requestId, record, unsent && !bound);
      else if (admitted === undefined) await tidy(this.pending.abandon(requestId));
      throw failure?.refusal ?? error;
    }
  }

  /** Undefined for a test number: it costs nothing, and counts for nothing. */
  private async admit(
    phone: PhoneNumber,
    { pseudonym, byDevice, returning }: PendingChallenge,
    { address, solution }: Asker,
    provider: string,
    repeat: Repeat | undefined,
  ): Promise<Admitted | undefined> {
    if (isTestNumber(phone)) return undefined;
    const origin = originOf(address);
    const network = networkOf(address);
    const applicant = {
      pseudonym,
      byDevice,
      returning,
      network,
      scopes: this.guard.scopesOf(phone, network),
      provider,
      repeat,
      solution: solution === undefined ? undefined : await this.proofOfWork.check(solution, phone, origin),
    };
    try {
      return await this.admission.admit(applicant);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'challenge_required') throw error;
      throw new ApiError(error.code, { proofOfWork: await this.proofOfWork.challenge(phone, origin) });
    }
  }

  /** An SMS that failed at once does not count against the person's resends, as one that fails later does not. */
  private async resendAfter(
    pseudonym: string,
    { delivery }: Sent,
    admitted: Admitted | undefined,
  ): Promise<number> {
    const { resendAfterMs = 0, sms } = admitted ?? {};
    if (delivery !== 'failed' || sms === undefined) return resendAfterMs;
    return (await this.admission.forgive(pseudonym, sms)) ?? resendAfterMs;
  }

  /** What is known of its fate already. */
  private record({ delivery }: Sent, text: string): void {
    const sms = readSms(text);
    if (sms === undefined || delivery === 'accepted' || delivery === 'sent') return;
    this.ledger.record({ what: 'delivery', sms: sms.entry, at: sms.at, delivery, cost: 0 });
  }

  /** Derived, so that a repeat of this send finds the same key, and upstream never learns the request id. */
  private keyOf(requestId: string): string {
    return createHmac('sha256', this.idempotencyKey).update(requestId).digest('hex').slice(0, 32);
  }
}

/** The provider that may have sent it is configured no more: its code could never be checked. */
function gone(): never {
  throw new ApiError('upstream_unavailable');
}
