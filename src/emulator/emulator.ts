import { setMaxListeners } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Account, type EmulatorSettings, type SentMessage } from './account';
import { failure } from './responses';
import { Api, type Call } from './api';
import { serveControl } from './control';
import { readFaultScript } from './control.dto';
import { Faults, type FaultScript } from './faults';
import { Inbox } from './inbox';
import { write } from './misbehave';
import { BodyTooLarge, isLocalRequest, isLoopback } from './requests';

export type { EmulatorSettings, SentMessage } from './account';
export type { Call } from './api';
export type { Fault } from './fault';
export type { FaultScript } from './faults';

/** A running emulator. */
export interface Emulator {
  readonly url: string;
  readonly port: number;
  /** Every SMS that was accepted, the oldest first. */
  readonly messages: readonly SentMessage[];
  /** Every call of the API, accepted or not, the oldest first. */
  readonly calls: readonly Call[];
  /** May be changed at any time. */
  readonly settings: EmulatorSettings;
  lastMessageTo(phoneNumber: string): SentMessage | undefined;
  /**
   * Scripts a fault for calls to come.
   *
   * @throws Error when the script makes no sense
   */
  fault(script: FaultScript): void;
  /** Ends all faults; an answer that is slow goes out now. */
  clearFaults(): void;
  /** The API keys that are good from now on, as when one is made or revoked; none: every one of the right form. */
  acceptKeys(...keys: string[]): void;
  /** Forgets SMS, calls, faults and keys, and puts every setting back to what it was at the start. */
  reset(): void;
  /** Ends at once, hanging calls included. */
  close(): Promise<void>;
}

/**
 * Starts StartMessaging on your desk: both contracts over real HTTP, faults on demand, and a phone inbox at `/`; and Send
 * With SES beside it.
 * It shows codes, so it is never part of the service.
 *
 * @param options `port` 0, the default, takes a free one
 * @throws the error of `listen`, such as EADDRINUSE
 */
export async function startEmulator(
  options: {
    port?: number;
    host?: string;
    contract?: EmulatorSettings['contract'];
    perNumberLimit?: boolean;
    /** The origin of the service, to which the phone inbox links. */
    serviceOrigin?: string;
    /** Waited for when a visitor of the inbox starts over. */
    onStartOver?: () => Promise<void>;
  } = {},
): Promise<Emulator> {
  const { port = 0, host = '127.0.0.1', contract = 'both', perNumberLimit = false } = options;
  const { serviceOrigin = 'http://localhost:3000', onStartOver = () => Promise.resolve() } = options;
  const initial: EmulatorSettings = {
    contract,
    perNumberLimit,
    balance: 100,
    walletUnit: 'rupees',
    otpTtlSeconds: 300,
    otpAttempts: 3,
    sentAfterMs: 500,
    deliveredAfterMs: 3000,
  };
  const account = new Account({ ...initial });
  const faults = new Faults();
  const inbox = new Inbox(account, faults, serviceOrigin);
  const closing = new AbortController();
  // Each answer that is slow listens to it.
  setMaxListeners(0, closing.signal);
  const api = new Api(account, faults, closing.signal, () => {
    inbox.changed();
  });
  const reset = () => {
    account.reset();
    faults.clear();
    api.calls.length = 0;
    Object.assign(account.settings, initial);
    inbox.changed();
  };
  const startOver = async (): Promise<void> => {
    reset();
    await onStartOver();
  };
  const desk = { account, faults, api, inbox, startOver };

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // DNS rebinding: a web page with a domain name that resolves to 127.0.0.1 is the same origin as this server to the
    // browser, and would read the codes. But the browser sends the name of the page as the Host.
    if (isLoopback(host) && !isLocalRequest(request)) {
      write(
        response,
        failure(403, 'FORBIDDEN', 'Answers to localhost only, unless EMULATOR_HOST says otherwise'),
      );
      return;
    }
    const path = request.url?.split('?', 1)[0] ?? '/';
    const isControl = path === '/' || path === '/_emulator' || path.startsWith('/_emulator/');
    await (isControl ? serveControl(desk, request, response, path) : api.serve(request, response, path));
  }

  const server = createServer((request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (error instanceof BodyTooLarge && !response.headersSent) {
        write(response, failure(413, 'PAYLOAD_TOO_LARGE', error.message));
      } else {
        // The client went away, or the emulator is closing.
        response.destroy();
      }
    });
  });
  // Longer than a client keeps its sockets, so that it never writes into one that closes under it.
  server.keepAliveTimeout = 65_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;

  return {
    url: `http://${reachable(host)}:${address.port}`,
    port: address.port,
    messages: account.messages,
    calls: api.calls,
    settings: account.settings,
    lastMessageTo: (phoneNumber) => account.lastMessageTo(phoneNumber),
    fault: (script) => {
      faults.add(readFaultScript(script));
      inbox.changed();
    },
    clearFaults: () => {
      faults.clear();
      inbox.changed();
    },
    acceptKeys: (...keys) => {
      account.acceptKeys(keys);
    },
    reset,
    close: () =>
      new Promise((resolve) => {
        closing.abort();
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      }),
  };
}

// Bound to every address, it is still reached by this one.
function reachable(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
