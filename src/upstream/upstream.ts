import type { HttpService } from '@nestjs/axios';
import { type UpstreamResponse, readCorrelationId, readMessages } from './responses';
import { Breaker } from './breaker';
import { Connections } from './connection';
import { callHttp, type NoResponse } from './http-call';
import { redact } from './redact';
import { type RetryLimits, withRetries } from './retries';
import { readRetryAfter } from './retry-after';
import { isFailure, UpstreamError, type UpstreamReason, type Outcome } from './upstream.error';

/** One HTTP call, as told to `onCall`. */
export interface UpstreamCall {
  operation: 'send' | 'verify' | 'message' | 'wallet';
  outcome: Outcome;
  seconds: number;
  correlationId?: string;
}

export interface UpstreamOptions extends RetryLimits {
  baseUrl: string;
  /** The connection of a call alone, the TLS handshake included. */
  connectTimeoutMs: number;
  /** Told of every single HTTP call (each retry too), for metrics and logs; must not throw. */
  onCall?: ((call: UpstreamCall) => void) | undefined;
  /** Told when the breaker opens, and when it closes again; must not throw. */
  onBreaker?: ((open: boolean) => void) | undefined;
}

/** A call to be made, a POST when it has a body, and how to tell what its answer means. */
export interface Call {
  operation: UpstreamCall['operation'];
  path: string;
  body?: object;
  /** The answer decides nothing about a user, so the connection may be used again; see {@link Connections}. */
  keep?: boolean;
  /** Texts that must never be read back out of an answer, beside the credential. */
  secrets: readonly string[];
  /** When all calls and pauses must be over, by `performance.now()`. */
  until?: number | undefined;
  classify: (answer: UpstreamResponse, redactions: readonly string[]) => Outcome;
}

/** The result of a successful call. */
export interface UpstreamResult {
  outcome: Outcome;
  answer: UpstreamResponse;
  correlationId: string | undefined;
}

type Ended = Awaited<ReturnType<Upstream['once']>>;

const NUMBER_LIMIT_SECONDS = 300;
const THROTTLE_SECONDS = 60;

/** The wire to one provider: its connections, timeouts, retries and breaker. Every failure is an {@link UpstreamError}. */
export class Upstream {
  private readonly connections: Connections;
  /** The path of the base URL, without a slash at its end. */
  private readonly basePath: string;
  private readonly breaker: Breaker;

  /** @param credential the header that authenticates this service; its value is read at each call */
  constructor(
    private readonly provider: string,
    private readonly http: HttpService,
    private readonly credential: { readonly header: string; readonly value: string },
    private readonly options: UpstreamOptions,
  ) {
    this.basePath = new URL(options.baseUrl).pathname.replace(/\/+$/, '');
    this.connections = new Connections(options.baseUrl, options.connectTimeoutMs);
    this.breaker = new Breaker(options.onBreaker);
  }

  /**
   * Makes a call, and repeats it after the failures that are in `retried`. It counts once for the breaker, by how it ended:
   * each repeat as a failure of its own would open that after a handful of people.
   */
  async call(call: Call, retried: ReadonlySet<UpstreamReason>): Promise<UpstreamResult> {
    const result = await this.breaker.run(async () => {
      let last: Ended | undefined;
      const attempt = async (timeoutMs: number): Promise<UpstreamResult> => {
        // Others found it down meanwhile; and of a probe there is one.
        if (last !== undefined && this.breaker.open) return this.read(undefined);
        last = await this.once(call, timeoutMs);
        return this.read(last);
      };
      const ended = await Promise.allSettled([withRetries(this.options, retried, attempt, call.until)]);
      return { ended: ended[0], down: last?.down ?? false };
    });
    if (result === undefined) return this.read(undefined);
    if (result.ended.status === 'rejected') throw result.ended.reason;
    return result.ended.value;
  }

  /** One call that no request waits for: it does not count for the breaker, and is not made while that is open. */
  async callOnce(call: Call): Promise<UpstreamResult> {
    const { timeoutMs, deadlineMs } = this.options;
    const ended = this.breaker.open ? undefined : await this.once(call, Math.min(timeoutMs, deadlineMs));
    return this.read(ended);
  }

  private async once({ operation, path, body, keep = false, secrets, classify }: Call, timeoutMs: number) {
    const started = performance.now();
    // Once: it may be replaced while the call is under way, and what the answer must not repeat is what was sent.
    const { header, value } = this.credential;
    const redactions = [value, ...secrets.map((secret) => secret.replace(/^\+91/, ''))];
    const headers = {
      ...(body && { 'Content-Type': 'application/json' }),
      Accept: 'application/json',
      'User-Agent': 'otp-login',
      [header]: value,
    };
    const method = body ? 'POST' : 'GET';
    const request = { method, path: `${this.basePath}${path}`, headers, body, keep } as const;
    const answer = await callHttp(this.http, this.connections, request, timeoutMs);
    const lost = 'failure' in answer;
    const outcome = lost ? answer.failure : classify(answer, redactions);
    const correlationId = lost ? undefined : readCorrelationId(answer.body, redactions);
    const seconds = (performance.now() - started) / 1000;
    this.options.onCall?.({ operation, outcome, seconds, ...(correlationId && { correlationId }) });
    return { answer, outcome, correlationId, redactions, down: isDown(outcome, answer) };
  }

  private read(ended: Ended | undefined): UpstreamResult {
    if (ended === undefined) throw new UpstreamError(this.provider, 'breaker_open');
    const { answer, outcome, correlationId, redactions } = ended;
    if ('failure' in answer) {
      throw new UpstreamError(this.provider, answer.failure, { status: answer.status });
    }
    if (!isFailure(outcome)) return { outcome: outcome, answer, correlationId };
    const [message] = readMessages(answer.body);
    throw new UpstreamError(this.provider, outcome, {
      status: answer.status,
      retryAfterSeconds: retryAfterSeconds(outcome, answer),
      correlationId,
      upstreamMessage: message === undefined ? undefined : redact(message, redactions),
    });
  }
}

// Any refusal shows that the provider works. Otherwise strangers could open the breaker by bad numbers.
function isDown(outcome: Outcome, answer: UpstreamResponse | NoResponse): boolean {
  if (outcome === 'unreachable' || outcome === 'failed' || outcome === 'timed_out') return true;
  return (answer.status ?? 0) >= 500;
}

function retryAfterSeconds(reason: UpstreamReason, answer: UpstreamResponse): number | undefined {
  if (reason === 'throttled') return readRetryAfter(answer.retryAfter) ?? THROTTLE_SECONDS;
  if (reason === 'number_limited') return readRetryAfter(answer.retryAfter) ?? NUMBER_LIMIT_SECONDS;
  return undefined;
}
