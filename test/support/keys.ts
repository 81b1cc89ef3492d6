/**
 * The names of the keys in Redis, spelled once for all tests. They are written by hand and not taken from `src/`, so that a
 * test notices when the service changes where it keeps something.
 */
export const PREFIX = 'otp-login:';
const ADMISSION = `${PREFIX}{admission}:`;

/** The keys that belong to the whole service and to no user. */
export const KEYS = {
  audit: `${PREFIX}{audit}:events`,
  ledger: `${ADMISSION}ledger`,
  serviceLimit: `${ADMISSION}service`,
  minutes: `${ADMISSION}budget:minutes`,
  quarters: `${ADMISSION}budget:quarters`,
  regulars: `${ADMISSION}regulars`,
  abuse: `${ADMISSION}abuse`,
  alerts: `${PREFIX}{alerts}:`,
  revocations: `${PREFIX}{revocations}`,
} as const;

/** The list of the admitted sends of one number. */
export const admittedSendsKey = (pseudonym: string): string => `${ADMISSION}phone:${pseudonym}`;
/** What a send under an Idempotency-Key was admitted as. */
export const admittedRepeatKey = (requestId: string): string => `${ADMISSION}send:${requestId}`;
/** The list of the failed sends that a number was forgiven. */
export const forgivenSendsKey = (pseudonym: string): string => `${ADMISSION}forgiven:${pseudonym}`;
/** What the abuse control counts of a scope, such as `series:987654`. */
export const abuseScopeKey = (scope: string): string => `${KEYS.abuse}:scope:${scope}`;
/** The level of a scope, as text: level, end of the hold, time mark, time of the last rise, signal. */
export const abuseLevelKey = (scope: string): string => `${KEYS.abuse}:level:${scope}`;
/** The totals of a day, counted from 1970 in India's time. */
export const usageKey = (day: number): string => `${KEYS.ledger}:usage:${day}`;
/** When an alert was sent last. */
export const alertKey = (alert: string, name: string): string => `${KEYS.alerts}${alert}:${name}`;

/** The keys of everything about one phone number. */
export function keysOfNumber(
  pseudonym: string,
): Record<'codes' | 'failed' | 'cleared' | 'deviceFailed' | 'devicesEnded' | 'blocked' | 'known', string> {
  const number = `${PREFIX}{${pseudonym}}:`;
  return {
    codes: `${number}codes`,
    failed: `${number}failed`,
    cleared: `${number}cleared`,
    deviceFailed: `${number}device-failed`,
    devicesEnded: `${number}devices-ended`,
    blocked: `${number}blocked`,
    known: `${number}known`,
  };
}

/** The keys of a challenge and of the phone number that it is bound to. */
export function keysOf(requestId: string): ReturnType<typeof keysOfNumber> & {
  challenge: string;
  /** The records of sends under an Idempotency-Key. */
  sends: string;
} {
  const pseudonym = requestId.slice(0, 22);
  return {
    ...keysOfNumber(pseudonym),
    challenge: `${PREFIX}{${pseudonym}}:challenge:${requestId.slice(22)}`,
    sends: `${PREFIX}{${pseudonym}}:send:*`,
  };
}

/** The keys of a user's sessions. `session('*')` is the pattern of all of them. */
export function keysOfUser(subject: string): {
  sessions: string;
  session: (id: string) => string;
  opened: (id: string) => string;
  blocked: string;
} {
  const user = `${PREFIX}{${subject}}:`;
  return {
    sessions: `${user}sessions`,
    session: (id) => `${user}session:${id}`,
    opened: (id) => `${user}opened:${id}`,
    blocked: `${user}blocked`,
  };
}
