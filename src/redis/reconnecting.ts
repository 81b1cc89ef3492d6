import type { Redis } from 'ioredis';

/** Back within two seconds of its return; spread, so that not all replicas of the service come at once. */
export function retryDelay(attempt: number): number {
  const most = Math.min(100 * 2 ** Math.min(attempt, 4), 1_500);
  return most / 2 + (Math.random() * most) / 2;
}

/** Stops the timer of `socketTimeout`, which ioredis forgets when a socket closes under a command. */
export function stopSocketTimer(client: Redis): void {
  const timed = client as unknown as { socketTimeoutTimer?: NodeJS.Timeout | undefined };
  clearTimeout(timed.socketTimeoutTimer);
  timed.socketTimeoutTimer = undefined;
}
