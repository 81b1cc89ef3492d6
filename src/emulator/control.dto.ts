import { validateHeaderName, validateHeaderValue } from 'node:http';
import type { EmulatorSettings } from './account';
import type { FaultScript } from './faults';
import { presetFault } from './presets';

const KINDS = 'error raw html timeout reset cut malformed slow huge unverified verified delivery'.split(' ');
const MOST_BYTES = 64 * 1024 * 1024;
const WHOLE_NUMBERS = ['otpTtlSeconds', 'otpAttempts', 'sentAfterMs', 'deliveredAfterMs'];

/**
 * Reads a fault that came over HTTP.
 *
 * @throws Error that says what is wrong with it, in words for its author
 */
export function readFaultScript(value: unknown): FaultScript {
  const script = fields(value, 'the script');
  oneOf(script.on, ['send', 'verify', 'message', 'wallet', 'any'], 'on');
  if (script.provider !== undefined) oneOf(script.provider, ['startmessaging', 'sendwithses'], 'provider');
  optional(script.phoneNumber, 'string', 'phoneNumber');
  if (script.times !== undefined) wholeNumber(script.times, 0, 1e9, 'times');
  if (typeof script.fault === 'string') {
    if (!presetFault(script.fault))
      throw new Error('fault names no preset; GET /_emulator/presets lists them');
  } else script.fault = readFault(fields(script.fault, 'fault'));
  return script as unknown as FaultScript;
}

function readFault(fault: Record<string, unknown>): Record<string, unknown> {
  oneOf(fault.kind, KINDS, 'fault.kind');
  if (fault.when !== undefined) {
    oneOf(fault.when, ['before', 'after'], 'fault.when');
    // The others need the right answer, and there is none without the effect.
    oneOf(fault.kind, ['error', 'raw', 'html', 'timeout', 'reset'], 'fault.kind, if there is a fault.when,');
  }
  if (fault.kind === 'delivery') required(fault.status, 'string', 'fault.status');
  else if (fault.kind === 'error' || fault.kind === 'raw' || fault.status !== undefined) {
    // A 1xx is no answer: the client would wait for the next one.
    wholeNumber(fault.status, 200, 599, 'fault.status');
  }
  if (fault.kind === 'error') required(fault.code, 'string', 'fault.code');
  if (fault.kind === 'slow') wholeNumber(fault.delayMs, 0, 600_000, 'fault.delayMs');
  if (fault.bytes !== undefined) wholeNumber(fault.bytes, 1, MOST_BYTES, 'fault.bytes');
  if (fault.kind === 'verified' && !('value' in fault)) throw new Error('fault.value is missing');
  for (const name of ['message', 'failureReason']) optional(fault[name], 'string', `fault.${name}`);
  for (const name of ['trickle', 'gzip']) optional(fault[name], 'boolean', `fault.${name}`);
  const { details } = fault;
  if (
    details !== undefined &&
    !(Array.isArray(details) && details.every((text) => typeof text === 'string'))
  ) {
    throw new Error('fault.details must be a list of texts');
  }
  if (fault.headers === undefined) return fault;
  fault.headers = fields(fault.headers, 'fault.headers');
  for (const [name, text] of Object.entries(fault.headers as object)) {
    required(text, 'string', `fault.headers.${name}`);
    validateHeaderName(name);
    validateHeaderValue(name, text as string);
  }
  return fault;
}

/**
 * Reads a change of settings that came over HTTP.
 *
 * @throws Error that says what is wrong with it
 */
export function readSettings(value: unknown): Partial<EmulatorSettings> {
  const change = fields(value, 'the settings');
  for (const [name, setting] of Object.entries(change)) {
    if (name === 'contract') oneOf(setting, ['both', 'caller', 'provider'], name);
    else if (name === 'walletUnit') oneOf(setting, ['rupees', 'millionths'], name);
    else if (name === 'perNumberLimit') required(setting, 'boolean', name);
    else if (name === 'balance') rupees(setting);
    else if (WHOLE_NUMBERS.includes(name)) wholeNumber(setting, 0, 1e9, name);
    else throw new Error(`there is no setting ${name}`);
  }
  return change;
}

function rupees(value: unknown): void {
  if (typeof value === 'number' && value >= 0 && value <= 1e9) return;
  throw new Error('balance must be a number of rupees, 0 or more');
}

/** The fields of an object without those that are null, which count as absent; only a `value` to be answered may be null. */
function fields(value: unknown, name: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return Object.fromEntries(Object.entries(value).filter(([key, one]) => one !== null || key === 'value'));
  throw new Error(`${name} must be an object`);
}

function oneOf(value: unknown, allowed: readonly string[], name: string): void {
  if (!allowed.includes(value as string)) throw new Error(`${name} must be one of ${allowed.join(', ')}`);
}

function wholeNumber(value: unknown, least: number, most: number, name: string): void {
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) return;
  throw new Error(`${name} must be a whole number from ${least} to ${most}`);
}

function required(value: unknown, type: 'string' | 'boolean', name: string): void {
  if (typeof value !== type) throw new Error(`${name} must be a ${type}`);
}

function optional(value: unknown, type: 'string' | 'boolean', name: string): void {
  if (value !== undefined) required(value, type, name);
}
