import {
  DelegateBackoff,
  fullJitterGenerator,
  handleWhen,
  type IRetryBackoffContext,
  retry,
} from 'cockatiel';
import { UpstreamError, type UpstreamReason } from './upstream.error';

export interface RetryLimits {
  /** One call. */
  timeoutMs: number;
  /** The first pause at most; it doubles. */
  retryDelayMs: number;
  /** Calls in all. */
  maxAttempts: number;
  /** All calls and pauses together, unless it is said by when. */
  deadlineMs: number;
}

/**
 * Calls `attempt` until it succeeds, fails for a reason that is not in `retried`, or the limits are reached,
 * with exponential backoff and full jitter between the calls.
 *
 * @throws the last failure, never kinder than an earlier one: if any attempt may have been accepted, it says so
 */
export async function withRetries<T>(
  limits: RetryLimits,
  retried: ReadonlySet<UpstreamReason>,
  attempt: (timeoutMs: number) => Promise<T>,
  deadline = performance.now() + limits.deadlineMs,
): Promise<T> {
  const timeLeft = () => deadline - performance.now();
  const pauses = {
    generator: fullJitterGenerator,
    initialDelay: limits.retryDelayMs,
    maxDelay: Infinity, // the deadline bounds it
    exponent: 2,
  };
  let lastFailure: UpstreamError | undefined;

  const policy = retry(
    handleWhen((error) => error instanceof UpstreamError && retried.has(error.reason)),
    {
      maxAttempts: limits.maxAttempts - 1, // cockatiel counts the repeats
      backoff: new DelegateBackoff<IRetryBackoffContext<unknown>, number>((_context, step) => {
        const [delay, state] = fullJitterGenerator(step, pauses);
        // To throw is how a backoff gives up: there is no use in a pause that leaves no time for a call.
        if (lastFailure && delay >= timeLeft()) throw lastFailure;
        return { delay, state };
      }),
    },
  );
  return policy.execute(async () => {
    const timeoutMs = Math.min(limits.timeoutMs, timeLeft());
    if (lastFailure && timeoutMs <= 0) throw lastFailure;
    try {
      return await attempt(timeoutMs);
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      lastFailure =
        lastFailure?.accepted === 'unknown'
          ? new UpstreamError(error.provider, error.reason, error, 'unknown')
          : error;
      throw lastFailure;
    }
  });
}
