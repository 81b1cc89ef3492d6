import type { OtpLoginError } from '../../client/src/errors';
import type { LoginFlow, Options, OtpLogin, Solver, Store } from '../../client/src/types';

export type { Login, OtpLogin, Sent, Store } from '../../client/src/types';
export type { OtpLoginError };

/** What the package exports, without the types of browsers. */
interface Client {
  createOtpLogin: (options: Options) => OtpLogin;
  OtpLoginError: typeof OtpLoginError;
  toE164: (input: string) => string | undefined;
  readOtpFromSms: (signal: AbortSignal) => Promise<string | undefined>;
  createLoginFlow: (client: OtpLogin, options?: { store?: Store; key?: string }) => LoginFlow;
  createSolver: (options?: object) => Solver;
  memoryStore: () => Store;
  localStore: () => Store;
  secureStore: (store: object) => Store;
  asyncStore: (store: object) => Store;
  mmkvStore: (store: object) => Store;
}

/** The client as Node.js loads it, with the modules of all its entries but React's in one object. */
export const client = (): Client =>
  Object.assign(
    {},
    ...['index', 'flow', 'pow', 'stores'].map((name) => globalThis.loadModule(`client/${name}`)),
  ) as Client;

/** What happens to a request on its way. */
export type Fate =
  /** It arrives, and so does its answer. */
  | 'delivered'
  /** It does not arrive. */
  | 'offline'
  /** It arrives, and its answer is lost. */
  | 'lost'
  /** Something on the way answers in place of the service. */
  | Response;

export interface Seen {
  path: string;
  method: string;
  headers: Headers;
  // Tests look into bodies of many shapes.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  body: any;
}

/** The network between one client and the service. */
export class Network {
  /** Every request that the client sent, in order. */
  readonly seen: Seen[] = [];
  /** Decides about each request; by default all are delivered. */
  fate: (request: Seen) => Fate | Promise<Fate> = () => 'delivered';
  /** What the service's own hands add, such as the cookie and the Origin of a browser. */
  constructor(
    private readonly browser: { send?(headers: Headers): void; receive?(answer: Response): void } = {},
  ) {}

  readonly fetch: typeof fetch = async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init.headers);
    const text = typeof init.body === 'string' ? init.body : undefined;
    const request: Seen = {
      path: url.pathname,
      method: init.method ?? 'GET',
      headers,
      body: text === undefined ? undefined : JSON.parse(text),
    };
    this.seen.push(request);
    const fate = await this.fate(request);
    if (init.signal?.aborted) throw new DOMException('aborted', 'AbortError');
    if (fate === 'offline') throw new TypeError('fetch failed');
    if (fate instanceof Response) return fate;
    this.browser.send?.(headers);
    const answer = await fetch(url, { ...init, headers });
    this.browser.receive?.(answer);
    if (fate === 'lost') throw new TypeError('fetch failed');
    return answer;
  };

  to(path: string): Seen[] {
    return this.seen.filter((request) => request.path === path);
  }
}

/** The page of a proxy. */
export const html = (status: number, headers: Record<string, string> = {}): Response =>
  new Response('<html><h1>Not here</h1></html>', {
    status,
    headers: { 'content-type': 'text/html', ...headers },
  });

/** A problem as the service writes it. */
export const problem = (status: number, code: string, more: object = {}): Response =>
  new Response(
    JSON.stringify({ type: `urn:otp-login:${code}`, title: code, status, code, detail: code, ...more }),
    {
      status,
      headers: { 'content-type': 'application/problem+json' },
    },
  );

/** One store that several clients share, as the tabs of a browser do: a change is told to the other tabs. */
export class SharedStore {
  readonly values = new Map<string, string>();
  readonly #watchers = new Set<{ tab: object; key: string; changed: () => void }>();

  /** The store as one tab has it. */
  tab(): Store {
    const tab = {};
    const change = (key: string): void => {
      for (const watcher of this.#watchers) if (watcher.tab !== tab && watcher.key === key) watcher.changed();
    };
    return {
      get: (key) => this.values.get(key) ?? null,
      set: (key, value) => {
        this.values.set(key, value);
        change(key);
      },
      remove: (key) => {
        this.values.delete(key);
        change(key);
      },
      subscribe: (key, changed) => {
        const watcher = { tab, key, changed };
        this.#watchers.add(watcher);
        return () => this.#watchers.delete(watcher);
      },
    };
  }
}
