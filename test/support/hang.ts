/** Longer than anything takes on the busiest machine: what lasts longer has hung. */
export const HANG_MS = 90_000;
const POLL_MS = 20;

/**
 * Resolves when the condition holds, and throws only when it hangs. `what` names the condition in the message. A condition
 * that throws does not hold yet.
 */
export async function until(
  holds: () => Promise<boolean> | boolean,
  what = 'the condition',
  hangMs = HANG_MS,
): Promise<void> {
  let last: unknown;
  for (const end = performance.now() + hangMs; ;) {
    try {
      if (await holds()) return;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) throw new Error(`hang: ${what} did not come to hold`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** The promise's own outcome; throws when it hangs. */
export async function withoutHang<Value>(promise: Promise<Value>, what: string): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const hung = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`hang: ${what} did not end`));
    }, HANG_MS);
  });
  try {
    return await Promise.race([promise, hung]);
  } finally {
    clearTimeout(timer);
  }
}
