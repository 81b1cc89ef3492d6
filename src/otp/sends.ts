import { Injectable } from '@nestjs/common';
import { Config } from '../config/config';
import { LATE_MS } from '../config/magic-number';
import { deriveKey } from '../crypto/derived-keys';
import { hmac128 } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { AbuseControl } from '../abuse/abuse-control';
import { ProofOfWork } from '../abuse/proof-of-work';
import { Ledger } from '../ledger/ledger';
import { writeSms, type Sms } from '../ledger/sms';
import { aboutNumber } from '../logging/request-context';
import { Metrics } from '../metrics/metrics';
import { PhoneIdentities } from '../phone-number/phone-identity';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import { AdmissionControl, type Admission, type SendPlan } from '../throttling/admission';
import { networkOf, originOf } from '../net/addresses';
import { Challenges } from '../challenges/challenges';
import { DeviceTokens } from '../devices/device-tokens';
import type { Draft, OtpRequest, Sent } from '../challenges/challenge';
import { ProviderError, type OtpProvider } from '../providers/otp-provider';
import { Providers } from '../providers/providers';

/** The client of a request, as limits and the abuse control see it. An invalid device token or solution counts as none. */
export interface ClientContext {
  address: string;
  /** The device token of an earlier login with this number. */
  deviceToken?: string | undefined;
  /** The solution of a proof of work. */
  solution?: string | undefined;
  idempotencyKey?: string | undefined;
}

/** A provider is called only if this much of the deadline is left. */
const LEAST_MS = 500;

/** The admission of a test number: it costs nothing, and counts for no limit. */
const FREE = { plan: 'send', resendAfterMs: 0, sms: undefined } as const;
type Admitted = Admission | typeof FREE;

/** The way of one SMS: create, admit, send, activate; or release. docs/design.md draws it. */
@Injectable()
export class Sends {
  private readonly upstreamKey: Buffer;

  constructor(
    private readonly config: Config,
    private readonly challenges: Challenges,
    private readonly admissionControl: AdmissionControl,
    private readonly abuse: AbuseControl,
    private readonly proofOfWork: ProofOfWork,
    private readonly devices: DeviceTokens,
    private readonly phones: PhoneIdentities,
    private readonly ledger: Ledger,
    private readonly providers: Providers,
    private readonly metrics: Metrics,
  ) {
    this.upstreamKey = deriveKey(config.subjectSecret, 'upstream idempotency key');
  }

  /** Sends a code through the first provider that accepts it. Throws {@link ApiError}. */
  async send(phone: PhoneNumber, context: ClientContext): Promise<OtpRequest> {
    const identity = this.phones.of(phone);
    aboutNumber(identity.pseudonym);
    const device = this.devices.read(context.deviceToken, identity.pseudonym);
    const providers = this.providers.inOrder(phone);
    const draft = await this.challenges.create(identity, providers[0], context.idempotencyKey, device);
    if (draft.kind === 'replay') return draft.request;
    let admission: Admitted | undefined;
    try {
      const sender = draft.maybeSent ? this.senderOf(draft, phone) : providers[0];
      admission = await this.admit(phone, draft, context, sender);
      const sent = await this.carryOut(admission, draft, phone, sender, providers);
      const resendAfterMs = await this.recordDelivery(draft, sent, admission);
      const sms = admission.sms ? writeSms({ ...admission.sms, message: sent.messageId ?? '' }) : '';
      const request = await this.challenges.activate(draft, sent, resendAfterMs, sms, context.address);
      if (this.config.magicState(phone) === 'late') this.deliverLate(draft);
      return request;
    } catch (error) {
      await this.challenges.release(draft, await this.fateOf(error, draft, admission));
      throw error instanceof ProviderError ? error.refusal : error;
    }
  }

  /** Shows an SMS that arrives late. In this process only, because production has no magic numbers. */
  private deliverLate({ id, provider, nonce }: Draft): void {
    setTimeout(() => {
      void this.challenges
        .recordDelivery({ id, sms: '', provider, nonce }, 'delivered')
        .catch(() => undefined);
    }, LATE_MS).unref();
  }

  /** The provider that may have sent the code. If it is configured no longer, its code can never be checked. */
  private senderOf(draft: Draft, phone: PhoneNumber): OtpProvider {
    const sender = this.providers.of({ ...draft, phone });
    if (sender === undefined) throw new ApiError('upstream_unavailable');
    return sender;
  }

  private async admit(
    phone: PhoneNumber,
    draft: Draft,
    { address, solution }: ClientContext,
    sender: OtpProvider,
  ): Promise<Admitted> {
    const origin = originOf(address);
    if (isTestNumber(phone)) return this.admitTestNumber(phone, origin, solution);
    const network = networkOf(address);
    const { byDevice, returning, needsProof, createdAt, fencingToken } = draft;
    // A repeat at a provider that ignores idempotency keys would be a second SMS.
    const again = sender.supportsIdempotencyKeys ? 'repeat' : 'tell';
    const resume: SendPlan = draft.maybeSent ? again : 'send';
    const admissionRequest = {
      pseudonym: draft.id.pseudonym,
      byDevice,
      returning,
      needsProof,
      network,
      scopes: this.abuse.scopesOf(phone, network),
      clients: this.abuse.clientsOf(address),
      provider: sender.name,
      retry: draft.keyed ? { of: draft.id.own, createdAt, fencingToken, resume } : undefined,
      solution: solution === undefined ? undefined : await this.proofOfWork.check(solution, phone, origin),
    };
    try {
      return await this.admissionControl.admit(admissionRequest);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'challenge_required') throw error;
      throw new ApiError(error.code, { proofOfWork: await this.proofOfWork.challenge(phone, origin) });
    }
  }

  /** A test number costs nothing. One magic number shows the proof of work. */
  private async admitTestNumber(
    phone: PhoneNumber,
    origin: string,
    solution: string | undefined,
  ): Promise<typeof FREE> {
    if (this.config.magicState(phone) !== 'challenge') return FREE;
    if (solution !== undefined && (await this.proofOfWork.check(solution, phone, origin))) return FREE;
    throw new ApiError('challenge_required', {
      proofOfWork: await this.proofOfWork.challenge(phone, origin),
    });
  }

  /** Executes the plan of the admission. All providers share one deadline, so the user waits once. */
  private async carryOut(
    { plan, sms }: Admitted,
    draft: Draft,
    phone: PhoneNumber,
    sender: OtpProvider,
    [first, ...others]: readonly [OtpProvider, ...OtpProvider[]],
  ): Promise<Sent> {
    if (plan === 'tell') return { delivery: 'unknown' };
    const until = performance.now() + this.config.upstreamDeadlineMs;
    if (plan === 'repeat') return this.call(sender, draft, phone, until);
    // The request before was never admitted, so it sent nothing: the send starts again with the first provider.
    if (draft.maybeSent) await this.reassign(draft, first, sms);
    for (let provider = first; ;) {
      try {
        const sent = await this.call(provider, draft, phone, until);
        if (sms) this.metrics.smsSent.inc({ provider: provider.name });
        return sent;
      } catch (error) {
        // Another provider is called while certainly nothing was sent, the fault is this provider's, and time is left.
        const next = error instanceof ProviderError && error.elsewhere ? others.shift() : undefined;
        if (next === undefined || late(until)) throw error;
        await this.reassign(draft, next, sms);
        if (late(until)) throw error;
        provider = next;
      }
    }
  }

  private call(provider: OtpProvider, draft: Draft, phone: PhoneNumber, until: number): Promise<Sent> {
    const { id, createdAt, nonce, lifeSeconds } = draft;
    // Derived, so that a repeat of this send has the same key, and upstream never learns the request id.
    const idempotencyKey = hmac128(this.upstreamKey, `${id.text}:${createdAt}`);
    return provider.send({ phone, idempotencyKey, nonce, lifeSeconds, until });
  }

  private async reassign(draft: Draft, next: OtpProvider, sms: Sms | undefined): Promise<void> {
    const before = draft.provider;
    try {
      await this.challenges.reassign(draft, next);
    } catch (error) {
      // Nothing was sent before, and the next provider is not called.
      throw error instanceof ApiError ? new ProviderError(error, 'no') : error;
    }
    if (sms && next.name !== before)
      this.ledger.record({ what: 'handed over', sms: sms.entry, provider: next.name });
  }

  /** Records what is known of the SMS already. Returns the milliseconds until the number may ask again. */
  private async recordDelivery(
    { id }: Draft,
    { delivery }: Sent,
    { sms, resendAfterMs }: Admitted,
  ): Promise<number> {
    if (sms === undefined || delivery === 'accepted' || delivery === 'sent') return resendAfterMs;
    this.ledger.record({ what: 'delivery', sms: sms.entry, at: sms.at, delivery, cost: 0 });
    if (delivery !== 'failed') return resendAfterMs;
    // An SMS that failed at once does not count against the resends of the number, as an SMS that fails later does not.
    return (await this.admissionControl.uncountFailedSms(id.pseudonym, sms)) ?? resendAfterMs;
  }

  /** Whether the SMS of a send that failed may be on its way. An SMS that certainly was not sent is refunded. */
  private async fateOf(
    error: unknown,
    { provider }: Draft,
    admission: Admitted | undefined,
  ): Promise<'refused' | 'no' | 'maybe'> {
    // The admission script may have run although its answer was lost.
    if (admission === undefined)
      return error instanceof ApiError && error.code !== 'store_unavailable' ? 'refused' : 'no';
    if (admission.plan !== 'send' || !(error instanceof ProviderError)) return 'maybe';
    if (error.accepted === 'no') {
      // If Redis fails, the price stays charged, which is the safe side.
      if (admission.sms) await this.admissionControl.refund(admission).catch(() => undefined);
      return 'no';
    }
    if (admission.sms) this.metrics.smsSent.inc({ provider });
    return 'maybe';
  }
}

const late = (until: number): boolean => until - performance.now() < LEAST_MS;
