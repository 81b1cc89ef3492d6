import { setTimeout as sleep } from 'node:timers/promises';
import type { Emulator } from '../../src/emulator/emulator';
import { HANG_MS } from './hang';
import type { Call, Token } from './history';
import type { Random } from './random';
import { wrongCode } from './world';

/** No client waits longer, whatever Retry-After says: a minute's run would be over. */
const LONGEST_PAUSE_MS = 2_000;
const TRIES = 6;
const GIVE_UP_MS = HANG_MS;
const KEPT = 3;

interface Answer {
  call: Call;
  retryAfterMs: number | undefined;
  // Of many shapes.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  body: any;
}

interface Held {
  access: string;
  refresh: string;
  /** Refresh tokens that were used, the oldest first. */
  used: string[];
}

export interface Surroundings {
  urls: readonly string[];
  upstream: Emulator;
  /** Numbers that everybody uses at once. */
  shared: readonly string[];
  calls: Call[];
  /** Every text that must never be found in Redis or in a log. */
  secrets: Set<string>;
}

/** A person with a phone who logs in, stays logged in, and logs out; and now and then one who steals or guesses. */
export class ChaosClient {
  private turn: number;
  private keys = 0;
  private kept: Held[] = [];
  private readonly ended: Held[] = [];

  constructor(
    private readonly name: string,
    private readonly number: string,
    private readonly world: Surroundings,
    private readonly random: Random,
  ) {
    this.turn = random.below(world.urls.length);
  }

  async live(over: () => boolean): Promise<void> {
    await sleep(this.random.below(1_500));
    while (!over()) {
      await this.logInAndOut(over);
      await this.lookBack();
    }
  }

  /** Whether a login with this number succeeds before the time is up, as a person would try. */
  async logsIn(number: string, until: number): Promise<boolean> {
    while (Date.now() < until) {
      const held = await this.logIn(number, () => Date.now() >= until, false);
      if (held !== undefined && (await this.me(held)).call.status === 200) return true;
    }
    return false;
  }

  private async logInAndOut(over: () => boolean): Promise<void> {
    const number = this.random.chance(0.3) ? this.random.pick(this.world.shared) : this.number;
    const held = await this.logIn(number, over, true);
    if (held === undefined) return;
    for (let steps = 2 + this.random.below(5); steps > 0 && !over(); steps--) {
      await this.pause();
      const what = this.random.next();
      if (what < 0.45) await this.me(held);
      else if (what < 0.92) {
        if (!(await this.refresh(held))) return;
      } else if (await this.steal(held)) return;
    }
    if (this.random.chance(0.4)) this.kept.push(held);
    else await this.logOut(held);
    if (this.kept.length > KEPT) await this.logOut(this.kept.shift()!);
  }

  private async logIn(number: string, over: () => boolean, plays: boolean): Promise<Held | undefined> {
    const asked = Date.now();
    const key = this.key(plays);
    const sent = await this.insist(over, key !== undefined, () => this.send(number, key));
    if (sent.call.status !== 200) return undefined;
    const { requestId } = sent.body;
    if (plays && this.random.chance(0.3)) await this.status(number, requestId);
    await this.pause();
    const { shared, upstream } = this.world;
    const sms = upstream.messages.findLast(
      ({ phoneNumber, createdAt }) =>
        phoneNumber === number && (shared.includes(number) || Date.parse(createdAt) >= asked),
    );
    // It never arrived: the person asks again later.
    if (sms === undefined) return undefined;
    if (plays && this.random.chance(0.25)) {
      let code = sms.code;
      for (let guesses = 1 + this.random.below(4); guesses > 0; guesses--) {
        code = wrongCode(code);
        await this.verify(number, requestId, code, this.key(true));
      }
    }
    const verifyKey = this.key(plays);
    const verified = await this.insist(over, verifyKey !== undefined, () =>
      this.verify(number, requestId, sms.code, verifyKey),
    );
    if (verified.call.status !== 200) return undefined;
    const { accessToken, refreshToken } = verified.body;
    return { access: accessToken, refresh: refreshToken, used: [] };
  }

  /** What has ended stays so, and what was kept still works. */
  private async lookBack(): Promise<void> {
    await this.pause();
    if (this.ended.length > 0) {
      const dead = this.random.pick(this.ended);
      if (this.random.chance(0.5)) await this.me(dead);
      else await this.askRefresh(dead.refresh);
    }
    if (this.kept.length > 0) {
      const held = this.random.pick(this.kept);
      if (!(await this.refresh(held))) this.kept = this.kept.filter((other) => other !== held);
      else await this.me(held);
    }
  }

  /** False when the session is lost. */
  private async refresh(held: Held): Promise<boolean> {
    const { call, body } = await this.insist(
      () => false,
      true,
      () => this.askRefresh(held.refresh),
    );
    if (call.status === 401) this.ended.push(held);
    if (call.status !== 200) return call.status !== 401;
    held.used.push(held.refresh);
    held.refresh = body.refreshToken;
    held.access = body.accessToken;
    return true;
  }

  /** A token that was used long ago: whoever has it, the session ends. True when it did. */
  private async steal(held: Held): Promise<boolean> {
    const old = held.used.at(-2);
    if (old === undefined) return false;
    const { call } = await this.insist(
      () => false,
      true,
      () => this.askRefresh(old),
    );
    if (call.status !== 401) return false;
    this.ended.push(held);
    return true;
  }

  private async logOut(held: Held): Promise<void> {
    const bearer = this.random.chance(0.5);
    const { call } = await this.insist(
      () => false,
      true,
      () =>
        this.ask(
          'logout',
          'POST',
          '/auth/logout',
          bearer ? {} : { refreshToken: held.refresh },
          bearer ? { authorization: `Bearer ${held.access}` } : {},
          { given: bearer ? accessToken(held.access) : refreshToken(held.refresh) },
        ),
    );
    if (call.status === 204) this.ended.push(held);
  }

  private send(number: string, key: string | undefined): Promise<Answer> {
    return this.ask('send', 'POST', '/auth/send-otp', { phoneNumber: number }, keyed(key), { number, key });
  }

  private verify(number: string, request: string, code: string, key: string | undefined): Promise<Answer> {
    const body = { requestId: request, otpCode: code };
    return this.ask('verify', 'POST', '/auth/verify-otp', body, keyed(key), { number, key, request, code });
  }

  private status(number: string, request: string): Promise<Answer> {
    return this.ask('status', 'GET', `/auth/otp/${request}`, undefined, {}, { number, request });
  }

  private me(held: Held): Promise<Answer> {
    const { access } = held;
    const headers = { authorization: `Bearer ${access}` };
    return this.ask('me', 'GET', '/auth/me', undefined, headers, { given: accessToken(access) });
  }

  private askRefresh(token: string): Promise<Answer> {
    const body = { refreshToken: token };
    return this.ask('refresh', 'POST', '/auth/refresh', body, {}, { given: refreshToken(token) });
  }

  /** Tries again what a person's app tries again: no answer, trouble of the service, too early. */
  private async insist(over: () => boolean, again: boolean, ask: () => Promise<Answer>): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      const answer = await ask();
      const { status } = answer.call;
      const worth = status === 0 || status === 409 || status === 429 || status >= 500;
      if (!worth || !again || tries === TRIES || over()) return answer;
      const pause = Math.min(LONGEST_PAUSE_MS, answer.retryAfterMs ?? 200);
      await sleep(pause * (0.8 + 0.4 * this.random.next()));
    }
  }

  private async ask(
    op: Call['op'],
    method: string,
    path: string,
    body: object | undefined,
    headers: Record<string, string>,
    facts: Partial<Call>,
  ): Promise<Answer> {
    const { urls, calls, shared, secrets } = this.world;
    const instance = this.turn++ % urls.length;
    const { number } = facts;
    const call: Call = {
      client: this.name,
      op,
      at: Date.now(),
      until: 0,
      instance,
      status: 0,
      outcome: 'no answer',
      retryAfter: false,
      shared: number !== undefined && shared.includes(number),
      ...facts,
    };
    let retryAfterMs: number | undefined;
    let answered: Answer['body'];
    try {
      const response = await fetch(`${urls[instance]}${path}`, {
        method,
        headers: { ...(body && { 'content-type': 'application/json' }), ...headers },
        signal: AbortSignal.timeout(GIVE_UP_MS),
        ...(body && { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      answered = text === '' ? {} : JSON.parse(text);
      const wait = response.headers.get('retry-after');
      if (wait !== null) retryAfterMs = Number(wait) * 1_000;
      Object.assign(call, {
        status: response.status,
        outcome: response.ok ? 'ok' : String(answered.code),
        retryAfter: wait !== null,
      });
    } catch (error) {
      const { name, cause } = error as Error & { cause?: { code?: string } };
      call.outcome = cause?.code ?? name;
    }
    call.until = Date.now();
    if (call.status === 200) this.note(call, answered);
    for (const name of ['accessToken', 'refreshToken', 'deviceToken'])
      if (typeof answered?.[name] === 'string') secrets.add(answered[name]);
    calls.push(call);
    return { call, retryAfterMs, body: answered };
  }

  /** What a good answer says of a person. */
  private note(call: Call, body: Answer['body']): void {
    if (call.op === 'send') call.request = body.requestId;
    if (call.op === 'me') call.got = { subject: body.id, session: body.sessionId, number: body.phoneNumber };
    if (call.op !== 'verify' && call.op !== 'refresh') return;
    const number = body.user?.phoneNumber as string | undefined;
    // Both tokens must say the same; the checker compares what the access token says.
    const { counter = 0, session } = refreshToken(body.refreshToken);
    const access = accessToken(body.accessToken);
    call.got = {
      ...access,
      counter,
      session: session === access.session ? session : `${session} and ${access.session}`,
      ...(number !== undefined && { number }),
    };
  }

  private key(always: boolean): string | undefined {
    // Some apps know of no keys; they try once.
    if (!always || this.random.chance(0.85)) return `key-of-chaos-${this.name}-${(this.keys += 1)}`;
    return undefined;
  }

  private pause(): Promise<void> {
    return sleep(150 + this.random.below(500));
  }
}

const keyed = (key: string | undefined): Record<string, string> =>
  key === undefined ? {} : { 'idempotency-key': key };

function refreshToken(token: string): Token {
  const [subject = '', session = '', counter] = token.split('.');
  return { subject, session, counter: Number(counter) };
}

function accessToken(token: string): Token {
  const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  return { subject: claims.sub, session: claims.sid, expires: claims.exp * 1_000 };
}
