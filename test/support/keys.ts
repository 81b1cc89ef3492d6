import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

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
/** The admission entry of a send under an Idempotency-Key, by the own part of its request id. */
export const admissionEntryKey = (own: string): string => `${ADMISSION}send:${own}`;
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
): Record<
  'codes' | 'failed' | 'cleared' | 'deviceFailed' | 'devicesEnded' | 'blocked' | 'known' | 'unlocks',
  string
> {
  const number = `${PREFIX}{${pseudonym}}:`;
  return {
    codes: `${number}codes`,
    failed: `${number}failed`,
    cleared: `${number}cleared`,
    deviceFailed: `${number}device-failed`,
    devicesEnded: `${number}devices-ended`,
    blocked: `${number}blocked`,
    known: `${number}known`,
    unlocks: `${number}unlocks`,
  };
}

/** `SUBJECT_SECRET` of every world. */
export const SUBJECT_SECRET = 'test-subject-secret-0123456789-abcd';
const requestIdKey = (): Buffer => Buffer.from(hkdfSync('sha256', SUBJECT_SECRET, '', 'request id', 32));

/** What is hidden in a request id: the pseudonym of its number, and the part that is the challenge's own. */
export function partsOf(requestId: string): { pseudonym: string; own: string } {
  const bytes = Buffer.from(requestId, 'base64url');
  const decipher = createDecipheriv('aes-256-gcm', requestIdKey(), bytes.subarray(0, 16));
  decipher.setAuthTag(bytes.subarray(32));
  const pseudonym = Buffer.concat([decipher.update(bytes.subarray(16, 32)), decipher.final()]);
  return { pseudonym: pseudonym.toString('base64url'), own: bytes.toString('base64url', 0, 16) };
}

/** A request id as the service issues it; `own` is the part that is the challenge's own. */
export function requestIdOf(pseudonym: string, own = randomBytes(16)): string {
  const cipher = createCipheriv('aes-256-gcm', requestIdKey(), own);
  const sealed = [cipher.update(pseudonym, 'base64url'), cipher.final(), cipher.getAuthTag()];
  return Buffer.concat([own, ...sealed]).toString('base64url');
}

/** An authentic request id without a challenge. */
export const unknownRequestId = (): string => requestIdOf(randomBytes(16).toString('base64url'));

/** The keys of a challenge and of the phone number that it is bound to. */
export function keysOf(requestId: string): ReturnType<typeof keysOfNumber> & { challenge: string } {
  const { pseudonym, own } = partsOf(requestId);
  return { ...keysOfNumber(pseudonym), challenge: `${PREFIX}{${pseudonym}}:challenge:${own}` };
}

/** The pattern of the keys of all challenges. */
export const challengesKey = `${PREFIX}*:challenge:*`;

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
