import { KEY_PREFIX } from '../redis/store';

/** Everything about a user is tagged by `sub`, so that each step is one script on one slot. */
export function sessionKey(subject: string, id: string): string {
  return `${KEY_PREFIX}{${subject}}:session:${id}`;
}

/** That the user's number is blocked: no session is opened. */
export function blockedKey(subject: string): string {
  return `${KEY_PREFIX}{${subject}}:blocked`;
}

/** The user's sessions, by the time of their opening. */
export function indexKey(subject: string): string {
  return `${KEY_PREFIX}{${subject}}:sessions`;
}
