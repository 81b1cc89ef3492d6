import type { components } from './api.js';
import type { OtpLoginError } from './errors.js';

type Schemas = components['schemas'];

/** The error codes that the service answers. */
export type ServiceCode = Schemas['Problem']['code'];

/** The codes of `POST /auth/refresh` that end a session. No other answer does. */
export type EndCode = Extract<
  ServiceCode,
  'not_logged_in' | 'refresh_token_invalid' | 'refresh_token_reused' | 'session_expired' | 'session_revoked'
>;

/** A service code, or a state that only this device knows. */
export type ErrorCode =
  ServiceCode | 'offline' | 'aborted' | 'unexpected_answer' | 'challenge_unsolved' | 'not_logged_in';

/** The fate of the SMS, as far as the service knows it. */
export type Delivery = Schemas['OtpRequestResponse']['delivery'];

/** One of the user's sessions, as `GET /auth/sessions` lists it. */
export type SessionInfo = Schemas['SessionResponse'];

/** The user of the session. */
export type User = Schemas['UserResponse'];

/** The proof of work that a 428 asks for, of ALTCHA's protocol (version 2). */
export interface Challenge {
  parameters: {
    algorithm: string;
    nonce: string;
    salt: string;
    cost: number;
    keyLength: number;
    keyPrefix: string;
    [other: string]: unknown;
  };
  signature?: string;
}

/** Solves a proof of work, and answers the text for the field `altcha`. It rejects if it cannot solve it. */
export type Solver = (challenge: Challenge, options: Call) => Promise<string>;

/** The place for three strings at most: the session, the device token of a number, and the pending request of a flow. */
export interface Store {
  get(key: string): string | null | Promise<string | null>;
  set(key: string, value: string): void | Promise<void>;
  remove(key: string): void | Promise<void>;
  /** Calls `changed` after another tab has changed the key, or more often. Answers the function that ends the subscription. */
  subscribe?(key: string, changed: () => void): () => void;
}

export interface Options {
  /** The service: `https://login.example.com`. */
  url: string;
  /** Where the refresh token lives: in `store`, or in a cookie that no script can read. Default: `body`. */
  delivery?: 'body' | 'cookie';
  /** Default: localStorage, and memory where localStorage is forbidden. */
  store?: Store;
  /** The prefix of the keys in the store, and of the name of the lock. Default: `otp-login`. */
  key?: string;
  fetch?: typeof fetch;
  /** Default: the solver of `@otp-login/client/pow`, loaded when the service asks for a proof of work. */
  solve?: Solver;
  /** Ends everything that the client does in the background. For tests and hot reload. */
  signal?: AbortSignal;
}

/** A code that was asked for. Both times are of this device's clock (milliseconds since 1970). */
export interface Sent {
  requestId: string;
  phoneNumber: string;
  codeLength: number;
  attemptsLeft: number;
  delivery: Delivery;
  expiresAt: number;
  resendAt: number;
}

/** How a request for a code stands. Both times are of this device's clock (milliseconds since 1970). */
export interface Status extends Omit<Sent, 'requestId' | 'phoneNumber'> {
  state: Schemas['OtpStatusResponse']['state'];
  /** How long to wait before the next poll. */
  pollAfterSeconds: number;
}

/** `unknown` until the store was read; `out` with the reason if the service ended the session. */
export type Login = { state: 'unknown' } | { state: 'out'; reason?: EndCode } | { state: 'in'; user: User };

export interface Call {
  signal?: AbortSignal;
}

/** A client of one otp-login service. `createOtpLogin` makes it. */
export interface OtpLogin {
  /**
   * Sends a code by SMS. Retries for 15 s under one Idempotency-Key, so one call never sends two SMS, and solves a proof of
   * work if the service asks for it. Throws `OtpLoginError`.
   *
   * @example
   * const sent = await client.sendOtp('+919876543210');
   */
  sendOtp(phoneNumber: string, options?: Call & { onChallenge?: () => void }): Promise<Sent>;

  /**
   * Asks how the request stands: whether the SMS arrived, and how many attempts are left.
   *
   * @example
   * const { delivery, pollAfterSeconds } = await client.status(sent.requestId);
   */
  status(requestId: string, options?: Call): Promise<Status>;

  /**
   * Exchanges the code for a session, and stores it. Throws `OtpLoginError`: `otp_incorrect` with `attemptsLeft`, or
   * `otp_attempts_exhausted` if the wrong code was the last attempt.
   *
   * @example
   * const user = await client.verifyOtp(sent, '482910');
   */
  verifyOtp(sent: Pick<Sent, 'requestId' | 'phoneNumber'>, otpCode: string, options?: Call): Promise<User>;

  /**
   * Tells whether a user is logged in. It sends no request if the store knows no user, and it refreshes a token that has
   * expired. It never throws: without a connection the stored session counts.
   *
   * @example
   * const login = await client.login();
   * if (login.state === 'in') console.log(login.user.phoneNumber);
   */
  login(): Promise<Login>;

  /**
   * Calls the listener after each change, also after a change in another tab. Answers the function that ends this.
   *
   * @example
   * const stop = client.onChange((login) => render(login));
   */
  onChange(listener: (login: Login) => void): () => void;

  /**
   * A valid access token. It refreshes the token if 30 s or less remain, and waits 10 s at most. `resource` asks for a token
   * with this `aud`.
   *
   * @example
   * socket.send(await client.accessToken());
   */
  accessToken(options?: Call & { resource?: string }): Promise<string>;

  /**
   * `fetch` with the access token. After a 401 it refreshes once and repeats once. Use it for your own API only: the
   * receiver of an access token can use it.
   *
   * @example
   * const orders = await client.fetch('https://api.example.com/orders').then((response) => response.json());
   */
  fetch: typeof fetch;

  /**
   * Logs out on this device at once, then tells the service, for 10 s at most. With `everywhere` all sessions of the user
   * end, and the call throws if the service could not be told.
   *
   * @example
   * await client.logout();
   */
  logout(options?: { everywhere?: boolean }): Promise<void>;

  /**
   * The sessions of the user.
   *
   * @example
   * for (const session of await client.sessions.list()) console.log(session.device, session.current);
   */
  sessions: {
    list(): Promise<SessionInfo[]>;
    end(id: string): Promise<void>;
    endOthers(): Promise<void>;
  };
}

/** What a login page shows. */
export interface FlowState {
  step: 'number' | 'code' | 'done';
  /** A request is under way: the button of the step is off. `solving`: a proof of work, which takes seconds on a cheap phone. */
  busy?: 'waiting' | 'solving' | undefined;
  /** It belongs to the field of the step. */
  error?: OtpLoginError | undefined;
  /** The number that was last sent to. */
  phoneNumber?: string;
  /** In the steps `code` and `done`. */
  sent?: Sent;
  /** In the step `done`. */
  user?: User;
}

/** The login of one page, from the number to the session. `createLoginFlow` makes it. */
export interface LoginFlow {
  readonly state: FlowState;
  /** Calls the listener after each change. Answers the function that ends this. */
  subscribe(listener: () => void): () => void;
  /** Sends a code to a number in any spelling. Only a press of the user's button may call it. */
  send(phoneNumber: string): Promise<void>;
  /** Sends another SMS to the same number. */
  resend(): Promise<void>;
  /** Takes the text of the code field: digits, or a whole SMS. Verifies each complete code. Answers the digits to show. */
  enter(text: string): string;
  verify(otpCode: string): Promise<void>;
  /** Back to the number. */
  change(): void;
  /** Ends polls and the wait for an SMS. */
  stop(): void;
}
