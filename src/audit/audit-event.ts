/** Why a session ended. */
export type Ending = 'logout' | 'logout_everywhere' | 'too_many' | 'token_reused' | 'number_blocked';

/**
 * Everything that the audit knows. People stand in it by a pseudonym of the number (`phone`) before they are logged in and
 * by `sub` after, never by both: who reads it shall not learn which number is whose. `network` is the client's address,
 * cut to /24 or /48.
 */
export type AuditEvent =
  | LoginEvent
  | { audit: 'code.failed'; phone: string; network: string; attemptsLeft: number }
  | { audit: 'number.locked'; phone: string; network: string; allowance: 'phone' | 'device'; seconds: number }
  | { audit: 'token.reused'; subject: string; session: string }
  | { audit: 'token.repeated'; subject: string; session: string; network: string }
  | SessionEndedEvent
  | AdminEvent
  | { audit: 'key.published' | 'key.signing' | 'key.removed'; kid: string; thumbprint: string };

/** `repeated`: the same login was answered again. */
interface LoginEvent {
  audit: 'login';
  subject: string;
  session: string;
  device: string;
  network: string;
  outcome: 'opened' | 'repeated';
  /** Of a test number. */
  test?: true;
}

/** `unknown`: Redis did not say, and it may have ended. */
interface SessionEndedEvent {
  audit: 'session.ended';
  subject: string;
  session: string;
  reason: Ending;
  outcome: 'ended' | 'unknown';
}

export type AdminAction = 'usage' | 'abuse' | 'address' | 'block' | 'unblock';

type AdminEvent =
  | { audit: 'admin.called'; admin: string; method: string; route: string }
  | { audit: 'admin.refused'; method: string; route: string }
  | ({ audit: `admin.${AdminAction}`; admin: string; outcome: 'begun' | 'done' | 'failed' } & AdminFields);

/** What was asked for. `reason` is what the operator wrote, without numbers. */
export interface AdminFields {
  phone?: string;
  days?: number;
  reason?: string;
  from?: string | undefined;
  to?: string | undefined;
}
