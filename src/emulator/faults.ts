import { type PresetName, presetFault } from './presets';

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

/** A fault, and the calls that it befalls. */
export interface FaultScript {
  on: Operation | 'any';
  /** Only calls about this number. */
  phoneNumber?: string;
  /** How many calls; 1 unless given, and 0 is all of them until the reset. */
  times?: number;
  /** What goes wrong, or the name of a preset. */
  fault: Fault | PresetName;
}

/** A fault that is still to come, as the inbox shows it. */
export interface PendingFault extends FaultScript {
  times: number;
}

/** The faults that are still to come. The oldest that fits a call befalls it. */
export class Faults {
  private pending: PendingFault[] = [];

  add(script: FaultScript): void {
    this.pending.push({ ...script, times: script.times ?? 1 });
  }

  take(operation: Operation | undefined, phoneNumber: string | undefined): Fault | undefined {
    const found = this.pending.find(
      (script) =>
        (script.on === 'any' || script.on === operation) &&
        (script.phoneNumber === undefined || script.phoneNumber === phoneNumber),
    );
    if (!found) return undefined;
    if (found.times === 1) this.pending.splice(this.pending.indexOf(found), 1);
    else if (found.times > 1) found.times -= 1;
    return typeof found.fault === 'string' ? presetFault(found.fault) : found.fault;
  }

  list(): readonly PendingFault[] {
    return this.pending;
  }

  clear(): void {
    this.pending = [];
  }
}
