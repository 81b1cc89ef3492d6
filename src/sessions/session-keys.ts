import { KEY_PREFIX } from '../redis/store';

/** The key of a session. All keys of a user are tagged by `sub`, so that each script has one slot. */
export function sessionKey(subject: string, id: string): string {
  return `${KEY_PREFIX}{${subject}}:session:${id}`;
}

/** Exists while the user's number is blocked: no session is opened. */
export function blockedKey(subject: string): string {
  return `${KEY_PREFIX}{${subject}}:blocked`;
}

/** The user's sessions, by the time of their opening. */
export function indexKey(subject: string): string {
  return `${KEY_PREFIX}{${subject}}:sessions`;
}
