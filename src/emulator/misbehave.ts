import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { type Answer, failure, noSuchRoute, success } from './responses';
import type { Fault } from './fault';

const BEFORE: readonly Fault['kind'][] = ['error', 'raw', 'html', 'unverified', 'verified'];

/** Whether the call has its effect although it goes wrong. */
export function takesEffect(fault: Fault): boolean {
  const when = 'when' in fault ? fault.when : undefined;
  return (when ?? (BEFORE.includes(fault.kind) ? 'before' : 'after')) === 'after';
}

/** Where a fault goes onto the wire: the call that it befalls, and what ends the emulator. */
export interface Wire {
  response: ServerResponse;
  method: string;
  path: string;
  closing: AbortSignal;
  /** Ends the wait of an answer that is slow. */
  ended: AbortSignal;
}

/**
 * Answers a call as the fault has it; `right` is what the answer would have been.
 *
 * @returns the status that was sent, or `undefined` when nothing was
 */
export async function misbehave(fault: Fault, right: Answer, wire: Wire): Promise<number | undefined> {
  const { response } = wire;
  switch (fault.kind) {
    case 'error': {
      const { status, code, message, details, headers } = fault;
      const answer =
        code === 'NOT_FOUND' && message === undefined
          ? { ...noSuchRoute(wire.method, wire.path), status }
          : failure(status, code, message ?? code, details);
      return write(response, { ...answer, ...(headers && { headers }) });
    }
    case 'raw':
      return write(response, { body: '', ...fault });
    case 'html': {
      const status = fault.status ?? 502;
      const page = `<html><head><title>${status}</title></head><body><center><h1>${status} Bad Gateway</h1></center><hr><center>nginx</center></body></html>\n`;
      return write(response, { status, headers: { 'Content-Type': 'text/html' }, body: page });
    }
    case 'timeout':
      return undefined;
    case 'reset':
      response.socket?.resetAndDestroy();
      return undefined;
    case 'cut':
      return cut(response, right);
    case 'malformed':
      return write(response, {
        ...right,
        headers: JSON_TYPE,
        body: JSON.stringify(right.body).slice(0, -20),
      });
    case 'slow':
      return fault.trickle ? trickle(wire, right, fault.delayMs) : late(wire, right, fault.delayMs);
    case 'huge':
      return huge(response, right, fault);
    case 'unverified':
      return write(response, success(200, { verified: false }));
    case 'verified':
      return write(response, success(200, { verified: fault.value }));
    case 'delivery':
      return write(response, right);
  }
}

const JSON_TYPE = { 'Content-Type': 'application/json; charset=utf-8' };

/** Writes an answer that is what it seems. */
export function write(response: ServerResponse, { status, headers, body }: Answer): number {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  response.writeHead(status, { ...(typeof body !== 'string' && JSON_TYPE), ...headers });
  response.end(text);
  return status;
}

function cut(response: ServerResponse, { status, body }: Answer): number {
  const text = JSON.stringify(body);
  response.writeHead(status, { ...JSON_TYPE, 'Content-Length': Buffer.byteLength(text) });
  response.write(text.slice(0, text.length / 2), () => {
    // A moment, because a reset at once could overtake the half that is to be read.
    setTimeout(() => response.socket?.resetAndDestroy(), 20).unref();
  });
  return status;
}

async function late(
  { response, closing, ended }: Wire,
  right: Answer,
  delayMs: number,
): Promise<number | undefined> {
  const signal = AbortSignal.any([closing, ended]);
  await sleep(delayMs, undefined, { signal, ref: false }).catch(() => {
    closing.throwIfAborted();
  });
  return response.destroyed ? undefined : write(response, right);
}

async function trickle(
  { response, closing }: Wire,
  { status, body }: Answer,
  durationMs: number,
): Promise<number> {
  const text = JSON.stringify(body);
  response.writeHead(status, { ...JSON_TYPE, 'Content-Length': Buffer.byteLength(text) });
  for (const byte of text) {
    await sleep(durationMs / text.length, undefined, { signal: closing, ref: false });
    if (response.destroyed) return status;
    response.write(byte);
  }
  response.end();
  return status;
}

async function huge(
  response: ServerResponse,
  { status, body }: Answer,
  fault: { bytes?: number; gzip?: boolean },
): Promise<number> {
  const bytes = fault.bytes ?? (fault.gzip ? 16 : 1) * 1024 * 1024;
  // The right answer is in it: a client that reads it all would take it for a success.
  const text = JSON.stringify({ ...(body as object), padding: ' '.repeat(bytes) });
  if (!fault.gzip) return write(response, { status, headers: JSON_TYPE, body: text });
  const packed = await promisify(gzip)(text);
  response.writeHead(status, { ...JSON_TYPE, 'Content-Encoding': 'gzip' });
  response.end(packed);
  return status;
}
