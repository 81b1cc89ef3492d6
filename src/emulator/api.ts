import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Account } from './account';
import { failure, noSuchRoute } from './responses';
import { type Outcome, refused, send, showMessage, showWallet, verify } from './contracts';
import type { Operation, Provider } from './fault';
import type { Faults } from './faults';
import { misbehave, takesEffect, write } from './misbehave';
import { readBody } from './requests';
import { no, sendBySes, verifyBySes } from './sendwithses';

/** One call of the API, as it came in. */
export interface Call {
  method: string;
  path: string;
  /** As received; the API key and the template key are masked. */
  headers: IncomingHttpHeaders;
  apiKeyValid: boolean;
  /** The JSON of the body, its text when it is none, or `undefined` when it is empty. */
  body: unknown;
  /** Whether the call had its effect: an SMS accepted, a code found right, a record read. */
  accepted: boolean;
  /** The status of the answer, once there is one. */
  status: number | undefined;
  /** When it came in, ISO 8601. */
  at: string;
}

// As with the SMS: a load test must not fill the memory.
const REMEMBERED = 20_000;

/** The emulated API: it records every call, and answers it rightly or as the next fault has it. */
export class Api {
  readonly calls: Call[] = [];

  constructor(
    private readonly account: Account,
    private readonly faults: Faults,
    private readonly closing: AbortSignal,
    private readonly changed: () => void,
  ) {}

  async serve(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    const call = await this.record(request, path);
    const operation = operationOf(call);
    const { ended } = this.faults;
    const fault = this.faults.take(providerOf(call), operation, this.phoneNumberOf(call));
    let outcome = fault && !takesEffect(fault) ? NOTHING_DONE : this.call(call, operation);
    if (fault?.kind === 'delivery' && outcome.message) {
      this.account.decide(outcome.message.id, fault);
      if (operation === 'message') outcome = this.call(call, operation);
    }
    call.accepted = outcome.accepted;
    this.changed();
    const wire = { response, method: call.method, path, closing: this.closing, ended };
    call.status = fault ? await misbehave(fault, outcome.answer, wire) : write(response, outcome.answer);
  }

  private async record(request: IncomingMessage, path: string): Promise<Call> {
    const at = new Date().toISOString();
    const body = await readBody(request);
    const key = request.headers['x-api-key'];
    const headers = { ...request.headers };
    if (typeof key === 'string') headers['x-api-key'] = key.startsWith('sm_live_') ? 'sm_live_***' : '***';
    const templateKey = request.headers['template-key'];
    if (templateKey !== undefined) headers['template-key'] = '***';
    const ofSes = providerOf({ path }) === 'sendwithses';
    const apiKeyValid = ofSes ? Boolean(templateKey) : this.account.isGoodKey(key);
    const method = request.method ?? '';
    const call: Call = { method, path, headers, apiKeyValid, body, accepted: false, status: undefined, at };
    this.calls.push(call);
    if (this.calls.length > REMEMBERED) this.calls.shift();
    return call;
  }

  private call(call: Call, operation: Operation | undefined): Outcome {
    if (operation && providerOf(call) === 'sendwithses') return this.callSes(call, operation);
    // The `caller` contract's server does not have the verify route at all.
    const missing = operation === 'verify' && this.account.settings.contract === 'caller';
    if (!operation || missing) return refused(noSuchRoute(call.method, call.path));
    if (!call.apiKeyValid) return refused(failure(401, 'UNAUTHORIZED', 'Invalid API key'));
    if (operation === 'message') return showMessage(this.account, idIn(call.path));
    if (operation === 'wallet') return showWallet(this.account);
    const body: unknown = call.body ?? {};
    if (!isObject(body)) return refused(failure(400, 'BAD_REQUEST', 'The body must be a JSON object'));
    return operation === 'send' ? send(this.account, body) : verify(this.account, body);
  }

  private callSes({ apiKeyValid, body = {} }: Call, operation: Operation): Outcome {
    if (!apiKeyValid) return refused(no(401, 'There is no template-key'));
    if (!isObject(body)) return refused(no(400, 'The body must be a JSON object'));
    return operation === 'send' ? sendBySes(this.account, body) : verifyBySes(this.account, body);
  }

  private phoneNumberOf({ path, body }: Call): string | undefined {
    if (path.startsWith('/messages/')) return this.account.message(idIn(path))?.phoneNumber;
    if (!isObject(body)) return undefined;
    if (typeof body.mobile === 'string') return body.mobile;
    if (typeof body.phoneNumber === 'string') return body.phoneNumber;
    return this.account.otpRequests.get(String(body.requestId))?.phoneNumber;
  }
}

// The answer of a fault that happens before the call has its effect.
const NOTHING_DONE = refused(failure(500, 'INTERNAL_ERROR', 'Internal server error'));

function operationOf({ method, path }: Call): Operation | undefined {
  if (method === 'POST' && (path === '/otp/send' || path === '/send-otp')) return 'send';
  if (method === 'POST' && (path === '/otp/verify' || path === '/verify-otp')) return 'verify';
  if (method === 'GET' && path === '/wallet') return 'wallet';
  if (method === 'GET' && /^\/messages\/[^/]+$/.test(path)) return 'message';
  return undefined;
}

function providerOf({ path }: Pick<Call, 'path'>): Provider {
  return path === '/send-otp' || path === '/verify-otp' ? 'sendwithses' : 'startmessaging';
}

function idIn(path: string): string {
  return path.slice('/messages/'.length);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
