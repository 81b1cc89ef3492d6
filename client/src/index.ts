import { OtpLoginError } from './errors.js';
import { createSend, fail, randomKey, retry, type Send, type ServiceError } from './http.js';
import { ENDS, stamp, type Session, type Token, type Tokens } from './session.js';
import { localStore } from './stores.js';
import type { EndCode, Login, Options, OtpLogin, User } from './types.js';

export { OtpLoginError } from './errors.js';
export { toE164 } from './phone.js';
export { readOtpFromSms } from './web-otp.js';
export type * from './types.js';

const enum Ms {
  Margin = 30_000,
  Lock = 2_000,
  Wait = 10_000,
  Patience = 15_000,
  Start = 2_000,
  Neighbours = 1_000,
}

/**
 * Makes the client of an otp-login service. Make one for a page, and share it.
 *
 * @example
 * const client = createOtpLogin({ url: 'https://login.example.com' });
 * const sent = await client.sendOtp('+919876543210');
 * const user = await client.verifyOtp(sent, prompt('The code') ?? '');
 * const orders = await client.fetch('https://api.example.com/orders');
 */
export function createOtpLogin(options: Options): OtpLogin {
  const {
    store = localStore(),
    key: prefix = 'otp-login',
    signal: ended,
    delivery,
    fetch: fetcher = (input, init) => fetch(input, init),
  } = options;
  const url = options.url.replace(/\/$/, '');
  const cookie = delivery === 'cookie';
  const once = createSend(url, fetcher, cookie, ended);
  const send: Send = (path, body, signal, key = randomKey(), ...rest) =>
    retry(() => once(path, body, signal, key, ...rest), Ms.Patience);

  /** What the store refused to keep, because it is full or locked. The next write tries again. */
  const unstored: Record<string, unknown> = {};
  /** Null if the store has no such string, and undefined if the store failed: a locked keychain is no log-out. */
  const read = async (name: string): Promise<any> => {
    try {
      return unstored[name] ?? JSON.parse((await store.get(prefix + '.' + name)) ?? 'null');
    } catch {
      return undefined;
    }
  };
  const write = async (value?: unknown, name = 'session'): Promise<void> => {
    const key = prefix + '.' + name;
    delete unstored[name];
    try {
      await (value ? store.set(key, JSON.stringify(value)) : store.remove(key));
    } catch {
      unstored[name] = value;
    }
  };
  const session = (): Promise<Session | null | undefined> => read('session');

  let login: Login = { state: 'unknown' };
  const listeners = new Set<(login: Login) => void>();
  /** Takes what the store says, and tells the listeners if it is new. */
  const show = async (reason?: EndCode): Promise<Login> => {
    const [user] = (await session()) ?? [];
    if (login.state === 'unknown' || (login as { user?: User }).user?.id !== user?.id) {
      if (login.state === 'in') tokens = {};
      login = user ? { state: 'in', user } : { state: 'out', ...(reason && { reason }) };
      // Never awaited: a listener that calls the client, hangs or throws holds nothing up.
      for (const tell of listeners) Promise.resolve(login).then(tell).catch(console.error);
    }
    return login;
  };

  /** In memory only, by their `resource`; in cookie mode also the one without a resource. */
  let tokens: Record<string, Token | undefined> = {};
  const isFresh = (token?: Token | 0): boolean => (token as Token)?.[1] - Date.now() > Ms.Margin;
  const held = ([, stored]: Session, resource: string, refused?: string): string | false => {
    const token = cookie || resource ? tokens[resource] : stored;
    return isFresh(token) && (token as Token)[0] !== refused && (token as Token)[0];
  };
  const keep = async (
    user: User,
    { accessToken, expiresIn, refreshToken }: Tokens,
    resource = '',
  ): Promise<void> => {
    const expiresAt = Date.now() + expiresIn * 1_000;
    // In cookie mode no script-readable place holds a token.
    await write([user, resource ? 0 : [cookie || accessToken, expiresAt], refreshToken]);
    // Before the new token is kept: it forgets those of another user.
    await show();
    tokens[resource] = [accessToken, expiresAt];
    if (!resource) channel?.postMessage(tokens['']);
  };

  /** To other tabs, in cookie mode: three tabs make one refresh. */
  const channel: (BroadcastChannel & { unref?: () => void }) | undefined =
    cookie && globalThis.BroadcastChannel ? new BroadcastChannel(prefix) : undefined;
  if (channel) {
    channel.onmessage = ({ data }) => (tokens[''] = data as Token);
    // A process of Node.js does not wait for it.
    channel.unref?.();
  }

  /** The log-out that the service is being told. */
  let leaving: Promise<unknown> | undefined;
  const leave = (refreshToken?: string): Promise<unknown> =>
    (leaving = send('/auth/logout', { refreshToken }).catch(() => {}));

  /** A frozen tab may hold the lock for ever, so the wait ends. The refresh is idempotent and needs no lock. */
  const locked = async <Value>(run: () => Promise<Value>): Promise<Value> => {
    try {
      return await navigator.locks.request(
        prefix + ':refresh',
        { signal: AbortSignal.timeout(Ms.Lock) },
        run,
      );
    } catch (error) {
      if (error instanceof OtpLoginError) throw error;
      // There are no locks, or the wait was too long.
      return run();
    }
  };

  let failure: OtpLoginError | undefined;
  /** `before`: the time in the store when the caller asked. */
  const attempt = async (before: unknown, resource: string, refused?: string): Promise<string> => {
    // Now, and not earlier: a tab that was frozen for an hour would send a token of an hour ago, and end the session.
    let old = (await session()) ?? fail('not_logged_in');
    let token = held(old, resource, refused);
    if (!token && channel && isFresh(old[1]) && (old[1] as Token)[1] !== before) {
      // Another tab has refreshed meanwhile: its message with the token is under way.
      await new Promise((resolve) => {
        channel.addEventListener('message', resolve);
        setTimeout(resolve, Ms.Neighbours);
      });
      token = held(old, resource, refused);
    }
    if (token) return token;
    if (!old[3]) {
      old[3] = randomKey();
      await write(old);
      // Another tab without a lock may have written its own key: the last one counts for both.
      old = (await session()) ?? old;
    }
    const [user, , refreshToken, key] = old;
    // The tokens, or the error.
    const answer: any = await once(
      '/auth/refresh',
      { refreshToken, resource: resource || null },
      undefined,
      key,
    ).catch((error) => (failure = error));
    const { accessToken, status, code } = answer;
    const now = await session();
    if (now?.[3] === key) {
      if (accessToken) {
        await keep(user, answer, resource);
        return accessToken;
      }
      if (status !== 422) {
        if (ENDS.test(code)) {
          await write();
          await show(code);
        }
        throw answer;
      }
      // The answer was lost and its cookie was not: the cookie is the successor already, and wants a new key.
      old.pop();
      await write(old);
    } else if (now === null) void leave(answer.refreshToken);
    // Another tab was faster: its tokens count. Or the user logged out: the new pair must not bring the session back.
    return attempt(before, resource, refused);
  };

  /** The refresh that runs, by resource: all callers of this tab share it. It goes on without a caller. */
  const running: Record<string, Promise<string> | undefined> = {};
  const tokenFor = async (
    signal?: AbortSignal,
    refused?: string,
    resource = '',
    patience: number = Ms.Wait,
  ): Promise<string> => {
    const stored = (await session()) ?? fail('not_logged_in');
    const token = held(stored, resource, refused);
    if (token) return token;
    const result = (running[resource] ??= retry(
      () => locked(() => attempt((stored[1] as Token)[1], resource, refused)),
      Infinity,
    ).finally(() => delete running[resource]));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(failure ?? new OtpLoginError('offline')), patience);
      signal?.addEventListener('abort', () => reject(new OtpLoginError('aborted')));
      result.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  };
  /** Calls with a token, and once more with a new one if the answer is a 401. */
  const authorized = async <Answer>(
    call: (token: string) => Promise<Answer>,
    signal?: AbortSignal,
  ): Promise<Answer> => {
    const token = await tokenFor(signal);
    let answer = await call(token).catch((error) => error);
    if (answer?.status === 401) {
      // A body that was read as a stream cannot be sent again: the caller gets the 401.
      answer = await tokenFor(signal, token)
        .then(call)
        .catch(() => answer);
    }
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const own = (method?: string, path = ''): Promise<{ sessions: never } & void> =>
    authorized((token) => send('/auth/sessions' + path, undefined, undefined, undefined, token, method));
  const deviceOf = (phoneNumber: string): string => 'device.' + phoneNumber.slice(1);

  const stop = store.subscribe?.(prefix + '.session', () => void show());
  ended?.addEventListener('abort', () => {
    stop?.();
    channel?.close();
  });

  return {
    async sendOtp(phoneNumber, { signal, onChallenge } = {}) {
      const deviceToken = await read(deviceOf(phoneNumber));
      const key = randomKey();
      const call = (altcha?: string) =>
        send('/auth/send-otp', { phoneNumber, deviceToken, altcha }, signal, key);
      const answer = await call().catch(async (error: ServiceError) => {
        const { challenge } = error;
        if (!challenge) throw error;
        onChallenge?.();
        const solve = options.solve ?? (await import('./pow.js')).solve;
        return call(await solve(challenge, { signal }).catch(() => fail('challenge_unsolved')));
      });
      return stamp({ ...answer, phoneNumber });
    },

    status: async (requestId, call) => stamp(await send('/auth/otp/' + requestId, undefined, call?.signal)),

    async verifyOtp({ requestId, phoneNumber }, otpCode, { signal } = {}) {
      // A late answer to the log-out would clear the cookie of the new session.
      await leaving;
      const device = deviceOf(phoneNumber);
      const known = await read(device);
      const body = { requestId, otpCode, tokenDelivery: delivery, deviceToken: known };
      const answer = await send('/auth/verify-otp', body, signal);
      const { user, deviceToken } = answer;
      if (deviceToken) await write(deviceToken, device);
      await keep(user, answer);
      return user;
    },

    async login() {
      try {
        if (await session()) await tokenFor(undefined, '', '', Ms.Start);
        else if (cookie && globalThis.document?.referrer.startsWith(url)) {
          // The user comes from the login page of the service, whose store another origin cannot read.
          const got: Tokens = await send('/auth/refresh', {});
          const { id, phoneNumber } = await send(
            '/auth/me',
            undefined,
            undefined,
            undefined,
            got.accessToken,
          );
          await keep({ id, phoneNumber }, got);
        }
      } catch {
        // Without a connection the stored session counts.
      }
      return show();
    },

    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },

    accessToken: ({ resource, signal } = {}) => tokenFor(signal, '', resource),

    fetch: (input, init = {}) =>
      authorized((token) => {
        const headers = new Headers(init.headers ?? (input as Request).headers);
        headers.set('authorization', 'Bearer ' + token);
        return fetcher(input, { ...init, headers });
      }, init.signal!),

    async logout({ everywhere } = {}) {
      const stored = await session();
      let token = stored && held(stored, '');
      await write();
      await show();
      const [, , refreshToken, key] = stored ?? [];
      if (everywhere && stored) {
        token ||= (await send('/auth/refresh', { refreshToken }, undefined, key)).accessToken as string;
        await send('/auth/sessions', undefined, undefined, undefined, token, 'DELETE');
      }
      await leave(refreshToken);
    },

    sessions: {
      list: () => own().then(({ sessions }) => sessions),
      end: (id) => own('DELETE', '/' + encodeURIComponent(id)),
      endOthers: () => own('DELETE', '?others=true'),
    },
  };
}
