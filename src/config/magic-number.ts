/** A state that a frontend must show, and that is hard to reach on purpose. */
export type MagicState = 'late' | 'ends' | 'expired' | 'challenge' | 'locked' | 'unavailable';

/** The code of every magic number. */
export const MAGIC_CODE = '000000';

/** How long the SMS of a `late` number is under way, and how long the session of an `ends` number lives. */
export const LATE_MS = 20_000;
export const ENDS_MS = 60_000;

/**
 * Test numbers that show a state on demand, only where MAGIC_NUMBERS is true. Every stranger knows their code, so production
 * refuses the setting.
 */
export const MAGIC_STATES: Readonly<Record<string, MagicState>> = {
  '+910000000002': 'late',
  '+910000000401': 'ends',
  '+910000000410': 'expired',
  '+910000000428': 'challenge',
  '+910000000429': 'locked',
  '+910000000503': 'unavailable',
};
