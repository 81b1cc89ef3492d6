import { HttpService } from '@nestjs/axios';
import { Upstream, type Call, type UpstreamOptions } from '../upstream/upstream';
import { UpstreamError, type UpstreamReason, type Outcome } from '../upstream/upstream.error';
import type { UpstreamResponse } from '../upstream/responses';
import { namesRepeat, readBalance, readSentOtp, type SentOtp, type Wallet } from './responses';
import { classify } from './classify';
import { classifyLookUp, type MessageState, readMessageState } from './message-state';

export type { SentOtp } from './responses';
export type { MessageState } from './message-state';

export interface StartMessagingOptions extends UpstreamOptions {
  /** Read anew for each call. */
  apiKey: string;
  templateId?: string | undefined;
  appName: string;
}

const PROVIDER = 'startmessaging';

// Under `caller` upstream ignores the idempotency key, so a repeat is a second SMS and a second charge.
const CERTAINLY_NOT_SENT: ReadonlySet<UpstreamReason> = new Set(['unreachable']);
// Under `provider` it deduplicates by key.
const NO_GOOD_ANSWER: ReadonlySet<UpstreamReason> = new Set(['unreachable', 'failed', 'timed_out']);

/**
 * The StartMessaging API in both of its contracts. Every failure is thrown as an `UpstreamError`; a right and a wrong
 * code are values.
 */
export class StartMessagingClient {
  private readonly upstream: Upstream;

  constructor(
    http: HttpService,
    private readonly options: StartMessagingOptions,
  ) {
    const credential = {
      header: 'X-API-Key',
      get value() {
        return options.apiKey;
      },
    };
    this.upstream = new Upstream(PROVIDER, http, credential, options);
  }

  /**
   * Sends a code that we made (`caller` contract). Repeated only when the call before certainly was not
   * accepted: `accepted: 'unknown'` in the error means that the SMS may be on its way, and the code be right.
   */
  async sendCode(request: {
    phoneNumber: string;
    code: string;
    expiryMinutes: number;
    idempotencyKey: string;
    until?: number;
  }): Promise<SentOtp> {
    const { phoneNumber, code, idempotencyKey, until } = request;
    const { templateId, appName } = this.options;
    // A missing `expiry` was once texted as "Valid for undefined minutes"; the values are strings.
    const variables = { otp: code, appName, expiry: String(request.expiryMinutes) };
    return this.send(
      'sendCode',
      { phoneNumber, ...(templateId && { templateId }), variables, idempotencyKey },
      [phoneNumber, code],
      CERTAINLY_NOT_SENT,
      until,
    );
  }

  /** Has StartMessaging make and send a code (`provider` contract). The `id` is what `verifyOtp` takes. */
  async sendOtp(request: {
    phoneNumber: string;
    idempotencyKey: string;
    until?: number;
  }): Promise<SentOtp & { id: string }> {
    const { phoneNumber, idempotencyKey, until } = request;
    const body = { phoneNumber, idempotencyKey };
    const sent = await this.send('sendOtp', body, [phoneNumber], NO_GOOD_ANSWER, until);
    return sent as SentOtp & { id: string }; // an answer without an id is a failure
  }

  /**
   * Has StartMessaging check a code (`provider` contract).
   *
   * @returns `verified: true` only for a 2xx that says so in `data.verified`, and nothing that contradicts it
   * @throws UpstreamError when it could not be checked; `accepted: 'no'` means that upstream certainly did
   *   not look at the code
   */
  async verifyOtp(request: { requestId: string; code: string }): Promise<{ verified: boolean }> {
    const body = { requestId: request.requestId, otpCode: request.code };
    const call: Call = {
      operation: 'verify',
      path: '/otp/verify',
      body,
      secrets: [request.code],
      classify: (answer) => classify('verifyOtp', answer),
    };
    const { outcome } = await this.upstream.call(call, NO_GOOD_ANSWER);
    return { verified: outcome === 'verified' };
  }

  /**
   * The state of an SMS, by the `messageId` of its send. One call, never repeated: it is best effort.
   *
   * @throws UpstreamError when no answer about this SMS came; `request_expired` when upstream does not know
   *   it. `accepted` has no meaning here.
   */
  async readMessage(id: string): Promise<MessageState> {
    // No encoding keeps "." and ".." from naming another route, and half a surrogate pair has none.
    if (/^\.{0,2}$|\p{Cs}/u.test(id)) throw new UpstreamError(PROVIDER, 'failed');
    return readMessageState(await this.lookUp('message', `/messages/${encodeURIComponent(id)}`, id));
  }

  /** The balance of the wallet. Otherwise as `readMessage`; for operators, and never on a request's path. */
  async readWallet(): Promise<Wallet> {
    return readBalance(await this.lookUp('wallet', '/wallet'));
  }

  private async lookUp(operation: 'message' | 'wallet', path: string, id?: string): Promise<unknown> {
    const classify = (answer: UpstreamResponse): Outcome => classifyLookUp(id, answer);
    const { answer } = await this.upstream.callOnce({ operation, path, secrets: [], classify });
    return answer.body;
  }

  private async send(
    operation: 'sendCode' | 'sendOtp',
    body: object,
    secrets: readonly string[],
    retried: ReadonlySet<UpstreamReason>,
    until: number | undefined,
  ): Promise<SentOtp> {
    const call: Call = {
      operation: 'send',
      path: '/otp/send',
      body,
      // Under `caller` this service checks the code by itself. Under `provider` the answer names the code to be checked.
      keep: operation === 'sendCode',
      secrets,
      until,
      // Its names are kept, so one that repeats the number or the code is none to go on with.
      classify: (answer, redactions) =>
        namesRepeat(answer.body, redactions) ? 'failed' : classify(operation, answer),
    };
    const { answer, correlationId } = await this.upstream.call(call, retried);
    return { ...readSentOtp(answer.body), ...(correlationId && { correlationId }) };
  }
}

/** A client outside of Nest, for a tool. Close it at the end. */
export function standaloneClient(options: StartMessagingOptions): StartMessagingClient {
  return new StartMessagingClient(new HttpService(), options);
}
