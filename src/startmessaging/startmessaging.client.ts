import type { Agent } from 'node:http';
import type { HttpService } from '@nestjs/axios';
import type { Answer, SentOtp } from './answers';
import { namesRepeat, readCorrelationId, readMessages, readSentOtp } from './answers';
import { classify, isFailure, type Verdict } from './classify';
import { closeIdleSockets, createAgent } from './connection';
import { callOnce } from './http-call';
import { classifyLookUp, type MessageState, readMessageState } from './message-state';
import { redact } from './redact';
import { withRetries } from './retries';
import { readRetryAfter } from './retry-after';
import { StartMessagingError, type StartMessagingReason } from './startmessaging.error';
import { readBalance, type Wallet } from './wallet';

export type { SentOtp } from './answers';
export type { MessageState } from './message-state';

/** One HTTP call, as told to `onCall`. */
export interface UpstreamCall {
  operation: 'send' | 'verify' | 'message' | 'wallet';
  outcome: 'accepted' | 'verified' | 'not_verified' | StartMessagingReason;
  seconds: number;
  correlationId?: string;
}

export interface StartMessagingOptions {
  baseUrl: string;
  apiKey: string;
  templateId?: string | undefined;
  appName: string;
  /** One call, from the first look-up to the last byte. */
  timeoutMs: number;
  /** Its connection alone, the TLS handshake included. */
  connectTimeoutMs: number;
  /** The first pause between two calls at most; it doubles, with full jitter. */
  retryDelayMs: number;
  /** Calls in all. */
  maxAttempts: number;
  /** All calls and pauses together. */
  deadlineMs: number;
  /** Told of every single HTTP call (each retry too), for metrics and logs; must not throw. */
  onCall?: ((call: UpstreamCall) => void) | undefined;
}

// Under `caller` upstream ignores the idempotency key, so a repeat is a second SMS and a second charge.
const CERTAINLY_NOT_SENT: ReadonlySet<StartMessagingReason> = new Set(['unreachable']);
// Under `provider` it deduplicates by key.
const NO_GOOD_ANSWER: ReadonlySet<StartMessagingReason> = new Set(['unreachable', 'failed', 'timed_out']);

/** A call to be made, a POST when it has a body, and how to tell what its answer means. */
interface Call {
  operation: UpstreamCall['operation'];
  path: string;
  body?: object;
  /** What must never be read back out of an answer, beside the API key. */
  secrets: readonly string[];
  meaning: (answer: Answer, never: readonly string[]) => Verdict;
}

const NUMBER_LIMIT_SECONDS = 300;
const THROTTLE_SECONDS = 60;

/**
 * The StartMessaging API in both of its contracts. Every failure is thrown as a `StartMessagingError`; a right
 * and a wrong code are values.
 */
export class StartMessagingClient {
  private readonly agent: Agent;
  private readonly baseUrl: string;

  constructor(
    private readonly http: HttpService,
    private readonly options: StartMessagingOptions,
  ) {
    this.baseUrl = options.baseUrl.replace(/\/+$/, '');
    this.agent = createAgent(this.baseUrl, options.connectTimeoutMs);
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
  }): Promise<SentOtp> {
    const { phoneNumber, code, idempotencyKey } = request;
    const { templateId, appName } = this.options;
    // A missing `expiry` was once texted as "Valid for undefined minutes"; the values are strings.
    const variables = { otp: code, appName, expiry: String(request.expiryMinutes) };
    return this.send(
      'sendCode',
      { phoneNumber, ...(templateId && { templateId }), variables, idempotencyKey },
      [phoneNumber, code],
      CERTAINLY_NOT_SENT,
    );
  }

  /** Has StartMessaging make and send a code (`provider` contract). The `id` is what `verifyOtp` takes. */
  async sendOtp(request: { phoneNumber: string; idempotencyKey: string }): Promise<SentOtp & { id: string }> {
    const { phoneNumber, idempotencyKey } = request;
    const sent = await this.send('sendOtp', { phoneNumber, idempotencyKey }, [phoneNumber], NO_GOOD_ANSWER);
    return sent as SentOtp & { id: string }; // an answer without an id is a failure
  }

  /**
   * Has StartMessaging check a code (`provider` contract).
   *
   * @returns `verified: true` only for a 2xx that says so in `data.verified`, and nothing that contradicts it
   * @throws StartMessagingError when it could not be checked; `accepted: 'no'` means that upstream certainly did
   *   not look at the code
   */
  async verifyOtp(request: { requestId: string; code: string }): Promise<{ verified: boolean }> {
    const body = { requestId: request.requestId, otpCode: request.code };
    const call: Call = {
      operation: 'verify',
      path: '/otp/verify',
      body,
      secrets: [request.code],
      meaning: (answer) => classify('verifyOtp', answer),
    };
    const { verdict } = await withRetries(this.options, NO_GOOD_ANSWER, (timeoutMs) =>
      this.call(call, timeoutMs),
    );
    return { verified: verdict === 'verified' };
  }

  /**
   * What became of an SMS, by the `messageId` of its send. One call, never repeated: it is best effort.
   *
   * @throws StartMessagingError when no answer about this SMS came; `request_expired` when upstream does not know
   *   it. `accepted` has no meaning here.
   */
  async readMessage(id: string): Promise<MessageState> {
    // No encoding keeps "." and ".." from naming another route, and half a surrogate pair has none.
    if (/^\.{0,2}$|\p{Cs}/u.test(id)) throw new StartMessagingError('failed');
    return readMessageState(await this.lookUp('message', `/messages/${encodeURIComponent(id)}`, id));
  }

  /** What is left to pay with. Otherwise as `readMessage`; for operators, and never on a request's path. */
  async readWallet(): Promise<Wallet> {
    return readBalance(await this.lookUp('wallet', '/wallet'));
  }

  /** Ends idle connections. Calls in flight run to their end. */
  close(): void {
    closeIdleSockets(this.agent);
  }

  private async lookUp(operation: 'message' | 'wallet', path: string, id?: string): Promise<unknown> {
    const meaning = (answer: Answer): Verdict => classifyLookUp(id, answer);
    const timeoutMs = Math.min(this.options.timeoutMs, this.options.deadlineMs);
    const { answer } = await this.call({ operation, path, secrets: [], meaning }, timeoutMs);
    return answer.body;
  }

  private async send(
    operation: 'sendCode' | 'sendOtp',
    body: object,
    secrets: readonly string[],
    retried: ReadonlySet<StartMessagingReason>,
  ): Promise<SentOtp> {
    const call: Call = {
      operation: 'send',
      path: '/otp/send',
      body,
      secrets,
      // Its names are kept, so one that repeats the number or the code is none to go on with.
      meaning: (answer, never) => (namesRepeat(answer.body, never) ? 'failed' : classify(operation, answer)),
    };
    const { answer, correlationId } = await withRetries(this.options, retried, (timeoutMs) =>
      this.call(call, timeoutMs),
    );
    return { ...readSentOtp(answer.body), ...(correlationId && { correlationId }) };
  }

  private async call(
    { operation, path, body, secrets, meaning }: Call,
    timeoutMs: number,
  ): Promise<{ verdict: Verdict; answer: Answer; correlationId: string | undefined }> {
    const started = performance.now();
    const headers = {
      ...(body && { 'Content-Type': 'application/json' }),
      Accept: 'application/json',
      'User-Agent': 'otp-login',
      'X-API-Key': this.options.apiKey,
    };
    const request = { method: body ? 'POST' : 'GET', url: `${this.baseUrl}${path}`, headers, body } as const;
    const answer = await callOnce(this.http, this.agent, request, timeoutMs);

    const never = [this.options.apiKey, ...secrets.map((secret) => secret.replace(/^\+91/, ''))];
    const lost = 'failure' in answer;
    const outcome = lost ? answer.failure : meaning(answer, never);
    const correlationId = lost ? undefined : readCorrelationId(answer.body, never);
    const seconds = (performance.now() - started) / 1000;
    this.options.onCall?.({ operation, outcome, seconds, ...(correlationId && { correlationId }) });

    if (lost) throw new StartMessagingError(answer.failure, { status: answer.status });
    if (!isFailure(outcome)) return { verdict: outcome, answer, correlationId };
    const [message] = readMessages(answer.body);
    throw new StartMessagingError(outcome, {
      status: answer.status,
      retryAfterSeconds: retryAfterSeconds(outcome, answer),
      correlationId,
      upstreamMessage: message === undefined ? undefined : redact(message, never),
    });
  }
}

function retryAfterSeconds(reason: StartMessagingReason, answer: Answer): number | undefined {
  if (reason === 'throttled') return readRetryAfter(answer.retryAfter) ?? THROTTLE_SECONDS;
  if (reason === 'number_limited') return readRetryAfter(answer.retryAfter) ?? NUMBER_LIMIT_SECONDS;
  return undefined;
}
