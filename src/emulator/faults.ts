import { setMaxListeners } from 'node:events';
import type { Fault, Operation, Provider } from './fault';
import { type PresetName, presetFault } from './presets';

/** A fault, and the calls that it befalls. */
export interface FaultScript {
  on: Operation | 'any';
  /** Only calls of this provider's API. */
  provider?: Provider;
  /** Only calls about this number. */
  phoneNumber?: string;
  /** How many calls; 1 unless given, and 0 is all of them until the reset. */
  times?: number;
  /** A fault, or the name of a preset. */
  fault: Fault | PresetName;
}

/** A fault that is still to come, as the inbox shows it. */
export interface PendingFault extends FaultScript {
  times: number;
}

/** The faults that are still to come. The oldest that fits a call befalls it. */
export class Faults {
  private pending: PendingFault[] = [];
  private ending = newSignal();

  /** Aborted when the faults end that are scripted now. */
  get ended(): AbortSignal {
    return this.ending.signal;
  }

  add(script: FaultScript): void {
    this.pending.push({ ...script, times: script.times ?? 1 });
  }

  take(
    provider: Provider,
    operation: Operation | undefined,
    phoneNumber: string | undefined,
  ): Fault | undefined {
    const found = this.pending.find(
      (script) =>
        (script.provider === undefined || script.provider === provider) &&
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

  /** Ends all of them; an answer that is slow goes out now. */
  clear(): void {
    this.pending = [];
    this.ending.abort();
    this.ending = newSignal();
  }
}

function newSignal(): AbortController {
  const controller = new AbortController();
  // Each answer that is slow listens to it.
  setMaxListeners(0, controller.signal);
  return controller;
}
