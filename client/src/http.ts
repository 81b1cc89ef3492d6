import { OtpLoginError } from './errors.js';
import type { Challenge } from './types.js';

/** The service's error, with the proof of work that it asks for. */
export type ServiceError = OtpLoginError & { challenge?: Challenge };

/** `key`: the Idempotency-Key. Every repeat of one call is the same request to the service. */
export type Send = (
  path: string,
  body?: object,
  signal?: AbortSignal,
  key?: string,
  token?: string,
  method?: string,
) => Promise<any>;

const enum Ms {
  Request = 20_000,
  Brief = 5_000,
  FirstPause = 400,
}

/** `offline`, `unexpected_answer`, `idempotency_in_progress`, `store_…`, `overloaded`, `internal_error`, `upstream_…`. */
const MOMENTARY = /^(off|unex|idempotency_i|st|ov|in|up)/;
/** The status of faults. */
const FAULTS = /4(0[3-5]|1|22)/;

export const fail = (code: OtpLoginError['code']): never => {
  throw new OtpLoginError(code);
};

/** An Idempotency-Key that no other party can guess. */
export const randomKey = (): string =>
  // Hermes has no WebCrypto. There, no page of another origin shares the process and could predict Math.random.
  (globalThis.crypto as Crypto | undefined)?.randomUUID?.() ?? Math.random().toFixed(20);

/**
 * Runs until it succeeds, as long as the failure may be one of a moment. It waits 0.4, 0.8, 1.6 s … with jitter, not less
 * than Retry-After, and less when the device comes online or the page is shown again.
 */
export async function retry<Value>(run: () => Promise<Value>, patience: number): Promise<Value> {
  const end = Date.now() + patience;
  for (let pause = Ms.FirstPause; ; pause = Math.min(pause * 2, Ms.Request)) {
    try {
      return await run();
    } catch (thrown) {
      const error = thrown as ServiceError;
      const { code, status, retryAfterSeconds = 0 } = error;
      const wait = Math.max(pause * Math.random() + 200, retryAfterSeconds * 1_000);
      const momentary = MOMENTARY.test(code) || (status === 429 && !error.challenge && wait <= Ms.Brief);
      if (!momentary || Date.now() + wait > end) {
        // Faults of the application or of the settings: only a developer can repair them.
        if (FAULTS.test(status as unknown as string)) console.error(error);
        throw error;
      }
      await new Promise<unknown>((resolve) => {
        const timer: ReturnType<typeof setTimeout> & { unref?: () => void } = setTimeout(resolve, wait);
        // In the background it does not keep a process of Node.js alive.
        if (patience > 1e9) timer.unref?.();
        if (!retryAfterSeconds) {
          for (const event of ['online', 'visibilitychange'])
            globalThis.addEventListener?.(event, resolve, { once: true });
        }
      });
    }
  }
}

/** What sends one request of a client. It throws `OtpLoginError` for everything but the service's own success. */
export function createSend(url: string, fetcher: typeof fetch, cookie: boolean, ended?: AbortSignal): Send {
  return async (path, body, signal = ended, key = randomKey(), token, method = body ? 'POST' : 'GET') => {
    const response = await fetcher(url + path, {
      method,
      headers: {
        'content-type': 'application/json',
        'idempotency-key': key,
        ...(token && { authorization: 'Bearer ' + token }),
      },
      body: body && JSON.stringify(body),
      // React Native has a time limit of its own, and no `any`.
      signal: AbortSignal.any?.([AbortSignal.timeout(Ms.Request), ...(signal ? [signal] : [])]) ?? signal,
      // Workers do not know this field.
      ...(cookie && { credentials: 'include' }),
    }).catch(() => fail(signal?.aborted ? 'aborted' : 'offline'));
    const { ok, status, headers } = response;
    // No JSON is not the service's: the page of a proxy or of a captive portal, or a connection that broke.
    const answer = await response.json().catch(() => {});
    if (status === 204 || (ok && answer)) return answer;
    const problem = headers.get('content-type')?.includes('problem') ? answer : undefined;
    // A wrong code that was the last attempt is as final as a code without attempts.
    const code =
      problem?.attemptsLeft === 0 ? 'otp_attempts_exhausted' : (problem?.code ?? 'unexpected_answer');
    const error = new OtpLoginError(code, status, {
      retryAfterSeconds: +headers.get('retry-after')! || undefined,
      ...problem,
      requestId: headers.get('x-request-id'),
    });
    throw error;
  };
}
