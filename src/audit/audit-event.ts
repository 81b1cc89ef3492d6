/** Why a session ended; `replaced`: the same browser, or the same app of a login, logged in again. */
export type Ending =
  | 'logout'
  | 'logout_everywhere'
  | 'too_many'
  | 'token_reused'
  | 'code_reused'
  | 'replaced'
  | 'number_blocked';

/**
 * All events of the audit. A user appears by a pseudonym of the number (`phone`) before the login and by `sub` after it, never
 * by both: readers of the audit shall not learn which number belongs to which user. `network` is the client's address, cut to
 * /24 or /48.
 */
export type AuditEvent =
  | LoginEvent
  | { audit: 'code.failed'; phone: string; network: string; attemptsLeft: number }
  | { audit: 'number.locked'; phone: string; network: string; allowance: 'phone' | 'device'; seconds: number }
  | { audit: 'token.reused'; subject: string; session: string }
  | { audit: 'app.login'; subject: string; session: string; client: string; network: string }
  | { audit: 'code.reused'; subject: string; session: string; client: string }
  | { audit: 'token.repeated'; subject: string; session: string; network: string }
  | SessionEndedEvent
  | { audit: 'client.refused'; network: string; failures: number }
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
  /** The number is a test number. */
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

export type AdminAction = 'usage' | 'abuse' | 'address' | 'block' | 'unblock' | 'unlock';

type AdminEvent =
  | { audit: 'admin.called'; admin: string; method: string; route: string }
  | { audit: 'admin.refused'; method: string; route: string }
  | ({ audit: `admin.${AdminAction}`; admin: string; outcome: 'begun' | 'done' | 'failed' } & AdminFields);

/** The target of the call. `reason` is the operator's text, without numbers. */
export interface AdminFields {
  phone?: string;
  days?: number;
  reason?: string;
  from?: string | undefined;
  to?: string | undefined;
}
