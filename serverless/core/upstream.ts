import {
  isSuccess,
  readCorrelationId,
  readMessages,
  type UpstreamResponse,
} from '../../src/upstream/responses';
import { readJson } from '../../src/upstream/read-json';
import { readRetryAfter } from '../../src/upstream/retry-after';
import {
  isFailure,
  UpstreamError,
  type Outcome,
  type UpstreamReason,
} from '../../src/upstream/upstream.error';
import { classify, type Operation } from '../../src/startmessaging/classify';
import { namesRepeat, readSentOtp, type SentOtp } from '../../src/startmessaging/responses';
import { redactWritten } from '../../src/logging/redact';
import type { EditionSettings } from './settings';

const PROVIDER = 'startmessaging';
const LARGEST_RESPONSE = 65_536;
/** Calls in all, the first included. */
const MOST_CALLS = 3;
/** Under `caller` upstream ignores the idempotency key, so a repeat is a second SMS and a second charge. */
const CERTAINLY_NOT_SENT: readonly UpstreamReason[] = ['unreachable'];
/** Under `provider` upstream deduplicates by key. */
const NO_GOOD_ANSWER: readonly UpstreamReason[] = ['unreachable', 'failed', 'timed_out'];
/**
 * Faults of a connection that was never made, as Node.js names them. Cloudflare's runtime has one error for a refused
 * connection and a lost response: there, each fault may have sent an SMS.
 */
const NEVER_CONNECTED =
  /^(?:ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|CERT_.*|ERR_TLS_.*|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_.*)$/;

interface Call {
  operation: Operation;
  path: string;
  body: object;
  /** Texts that a response must not repeat in a place that is kept. */
  secrets: readonly string[];
}

/** StartMessaging by `fetch`, in both of its contracts. Every failure is thrown as an `UpstreamError`. */
export class StartMessaging {
  constructor(private readonly settings: EditionSettings) {}

  /** Sends a code that this service made (`caller`). */
  async sendCode(request: {
    phoneNumber: string;
    code: string;
    expiryMinutes: number;
    idempotencyKey: string;
  }): Promise<SentOtp> {
    const { phoneNumber, code, expiryMinutes, idempotencyKey } = request;
    const { startMessagingTemplateId: templateId, startMessagingAppName: appName } = this.settings;
    // A missing `expiry` was once texted as "Valid for undefined minutes"; the values are strings.
    const variables = { otp: code, appName, expiry: String(expiryMinutes) };
    const body = { phoneNumber, ...(templateId && { templateId }), variables, idempotencyKey };
    const call = { operation: 'sendCode', path: '/otp/send', body, secrets: [phoneNumber, code] } as const;
    return readSentOtp((await this.call(call, CERTAINLY_NOT_SENT)).body);
  }

  /** Has StartMessaging make and send a code (`provider`). A response without an id is a failure. */
  async sendOtp(phoneNumber: string, idempotencyKey: string): Promise<SentOtp> {
    const body = { phoneNumber, idempotencyKey };
    const call = { operation: 'sendOtp', path: '/otp/send', body, secrets: [phoneNumber] } as const;
    return readSentOtp((await this.call(call, NO_GOOD_ANSWER)).body);
  }

  /** Has StartMessaging check a code (`provider`). */
  async verifyOtp(requestId: string, otpCode: string): Promise<boolean> {
    const body = { requestId, otpCode };
    const call = { operation: 'verifyOtp', path: '/otp/verify', body, secrets: [otpCode] } as const;
    return (await this.call(call, NO_GOOD_ANSWER)).outcome === 'verified';
  }

  /** Calls until it succeeds, fails for a reason that is not in `retried`, or three calls or the deadline are used up. */
  private async call(
    call: Call,
    retried: readonly UpstreamReason[],
  ): Promise<{ outcome: Outcome; body: unknown }> {
    const { upstreamDeadlineMs, upstreamTimeoutMs, upstreamRetryDelayMs } = this.settings;
    const until = Date.now() + upstreamDeadlineMs;
    let accepted: 'no' | 'unknown' = 'no';
    for (let calls = 1; ; calls += 1) {
      const timeoutMs = Math.max(1, Math.min(upstreamTimeoutMs, until - Date.now()));
      try {
        return await this.callOnce(call, timeoutMs);
      } catch (error) {
        if (!(error instanceof UpstreamError)) throw error;
        // Never kinder than an earlier failure: if one call may have been accepted, the whole send may.
        if (error.accepted === 'unknown') accepted = 'unknown';
        // Full jitter: instances that failed together must not come back together.
        const pauseMs = Math.random() * upstreamRetryDelayMs * 2 ** (calls - 1);
        if (!retried.includes(error.reason) || calls === MOST_CALLS || Date.now() + pauseMs >= until) {
          throw accepted === error.accepted
            ? error
            : new UpstreamError(PROVIDER, error.reason, error, accepted);
        }
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    }
  }

  private async callOnce({ operation, path, body, secrets }: Call, timeoutMs: number) {
    const answer = await this.request(path, body, timeoutMs);
    // Its names are kept, so a response that repeats the number or the code is no good response.
    const outcome =
      operation !== 'verifyOtp' && namesRepeat(answer.body, secrets) ? 'failed' : classify(operation, answer);
    if (!isFailure(outcome)) return { outcome, body: answer.body };
    const hidden = [...secrets, this.settings.startMessagingApiKey ?? ''].filter(Boolean);
    const text = readMessages(answer.body)[0] ?? '';
    throw new UpstreamError(PROVIDER, outcome, {
      retryAfterSeconds: outcome === 'throttled' ? readRetryAfter(answer.retryAfter) : undefined,
      status: answer.status,
      correlationId: readCorrelationId(answer.body, hidden),
      upstreamMessage: redactWritten(
        hidden.reduce((clean, each) => clean.replaceAll(each, '***'), text),
      ).slice(0, 300),
    });
  }

  private async request(path: string, body: object, timeoutMs: number): Promise<UpstreamResponse> {
    const { startMessagingBaseUrl, startMessagingApiKey = '' } = this.settings;
    let response: Response;
    try {
      response = await fetch(`${startMessagingBaseUrl}${path}`, {
        method: 'POST',
        headers: {
          'Content-Type': 'application/json',
          'X-API-Key': startMessagingApiKey,
          'Accept-Encoding': 'identity',
        },
        body: JSON.stringify(body),
        // A redirect would carry the API key elsewhere.
        redirect: 'manual',
        signal: AbortSignal.timeout(timeoutMs),
      });
    } catch (error) {
      throw new UpstreamError(PROVIDER, reasonOf(error));
    }
    const { status } = response;
    const retryAfter = response.headers.get('retry-after');
    try {
      return { status, retryAfter, body: readJson(await readBody(response)) };
    } catch (error) {
      // Where the body decides, half of one decides nothing.
      if (isSuccess(status) || status === 400 || status === 422) {
        throw new UpstreamError(PROVIDER, reasonOf(error) === 'timed_out' ? 'timed_out' : 'failed', {
          status,
        });
      }
      return { status, retryAfter, body: undefined };
    }
  }
}

function reasonOf(error: unknown): 'unreachable' | 'failed' | 'timed_out' {
  const { name, cause } = (error ?? {}) as { name?: unknown; cause?: { code?: unknown; errors?: unknown } };
  if (name === 'TimeoutError' || name === 'AbortError') return 'timed_out';
  // Node.js gathers the faults of several addresses of one host.
  const causes = Array.isArray(cause?.errors) ? (cause.errors as { code?: unknown }[]) : [cause];
  return causes.every((each) => NEVER_CONNECTED.test(String(each?.code))) ? 'unreachable' : 'failed';
}

/** The text of a body, of 64 KB at most: unpacked, a small body can become a large one. */
async function readBody(response: Response): Promise<string> {
  if (response.body === null) return '';
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > LARGEST_RESPONSE) throw new Error('The response is too large');
    chunks.push(chunk);
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}
