/**
 * When a call goes wrong. `before`: it does nothing. `after`: it has its effect (the SMS goes out and is charged,
 * the code is used up), and only the answer goes wrong.
 */
type When = 'before' | 'after';

/** One way to fail. */
export type Fault =
  /** An error envelope: before, unless told otherwise. `NOT_FOUND` without a message says `Cannot POST ...`. */
  | {
      kind: 'error';
      status: number;
      code: string;
      message?: string;
      details?: readonly string[];
      headers?: Record<string, string>;
      when?: When;
    }
  /** Any answer: before, unless told otherwise. A text goes out as it stands, anything else as JSON. */
  | { kind: 'raw'; status: number; headers?: Record<string, string>; body?: unknown; when?: When }
  /** A proxy's page instead of JSON, 502: before, unless told otherwise. */
  | { kind: 'html'; status?: number; when?: When }
  /** No answer, ever: after, unless told otherwise. */
  | { kind: 'timeout'; when?: When }
  /** The connection is reset instead of an answer: after, unless told otherwise. */
  | { kind: 'reset'; when?: When }
  /** 200 with `data.verified: false`, for a verify: before. */
  | { kind: 'unverified' }
  /** 200 with any JSON as `data.verified`, for a verify: before. */
  | { kind: 'verified'; value: unknown }
  /** Half of the right answer, then a reset: after. */
  | { kind: 'cut' }
  /** The right status, with JSON that breaks off: after. */
  | { kind: 'malformed' }
  /** The right answer, `delayMs` late or, with `trickle`, byte by byte in about that time: after. */
  | { kind: 'slow'; delayMs: number; trickle?: boolean }
  /** The right answer padded to `bytes` (1 MiB), or with `gzip` a small body that unpacks to that (16 MiB): after. */
  | { kind: 'huge'; bytes?: number; gzip?: boolean }
  /** The right answer, but the SMS becomes `failed`, `expired`, `queued` ...; for a send or a message: after. */
  | { kind: 'delivery'; status: string; failureReason?: string };

export type Operation = 'send' | 'verify' | 'message' | 'wallet';

/** The provider that a call belongs to. */
export type Provider = 'startmessaging' | 'sendwithses';
