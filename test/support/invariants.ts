import { setTimeout as sleep } from 'node:timers/promises';
import type { Emulator } from '../../src/emulator/emulator';
import { as } from './crowd';
import { HANG_MS, until } from './hang';
import { claimsOf } from './tokens';
import { call, freshNumber, sendOtp, verifyOtp, wrongCode, type Answer } from './world';

/** What a failover may lose of what was answered: what the replica had not heard yet. On a busy machine it lags behind. */
const LOSS_MS = 3_000;

interface Seen {
  what: string;
  at: number;
  tookMs: number;
  status: number;
  code: string;
}

interface Ended {
  accessToken: string;
  refreshToken: string;
}

/**
 * People who log in, stay logged in and log out, while something happens to Redis. They go on whatever they are told, and
 * `broken` lists what must never be, whatever happened.
 */
export class People {
  readonly seen: Seen[] = [];
  /** How many logins came through all of it. */
  rounds = 0;
  private readonly broke: string[] = [];
  private readonly ended: Ended[] = [];
  private readonly sends = new Map<string, number>();
  private readonly faults: number[] = [];
  private stopping = false;
  private readonly running: Promise<void>[] = [];

  constructor(
    private readonly urls: readonly string[],
    private readonly upstream: Emulator,
    count = 6,
    /** A number that all of them ask for, and how many SMS it may get. */
    private readonly limited?: { number: string; most: number },
  ) {
    for (let i = 0; i < count; i++) this.running.push(this.live(this.urls[i % this.urls.length] ?? ''));
  }

  /** A primary is being lost now: what was answered shortly before may be lost with it. */
  lossNow(): void {
    this.faults.push(Date.now());
  }

  /** Resolves when so many more have come through all of it: the service is back. */
  async through(more: number): Promise<void> {
    const goal = this.rounds + more;
    await until(() => this.rounds >= goal, 'the service').catch((error: unknown) => {
      throw new Error(`The service did not come back: ${JSON.stringify(this.tally())}`, { cause: error });
    });
  }

  /** Ends the load. Returns what broke: nothing may. */
  async stop(): Promise<string[]> {
    this.stopping = true;
    await Promise.all(this.running);
    await this.checkEnded();
    this.checkSms();
    for (const { what, status, code, tookMs } of this.seen) {
      if (status !== 503 && status >= 500) this.broke.push(`${what} was told ${status} ${code}`);
      if (tookMs > HANG_MS) this.broke.push(`${what} was told ${status} only after ${tookMs} ms`);
    }
    return [...new Set(this.broke)];
  }

  /** How often each was told. */
  tally(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { what, status, code } of this.seen) {
      const told = `${what} ${status} ${code}`.trim();
      counts[told] = (counts[told] ?? 0) + 1;
    }
    return counts;
  }

  private async live(url: string): Promise<void> {
    for (let i = 0; !this.stopping; i++) {
      if (this.limited !== undefined && i % 3 === 0) await this.send(url, this.limited.number);
      const done = await this.round(url, i).catch((error: unknown) => {
        this.broke.push(`A call was not answered: ${String(error)}`);
        return false;
      });
      if (done) this.rounds += 1;
      else await sleep(20);
    }
  }

  private async round(url: string, i: number): Promise<boolean> {
    const number = freshNumber();
    const sent = await this.send(url, number);
    if (sent.status !== 200) return false;
    const requestId = sent.body.requestId as string;
    const code = this.upstream.messages.filter(({ phoneNumber }) => phoneNumber === number).at(-1)?.code;
    // Delivery unknown is no SMS.
    if (code === undefined) return false;
    if (i % 4 === 0) {
      const guess = await this.ask('wrong code', () => verifyOtp(url, requestId, wrongCode(code)));
      if (guess.status === 200) this.broke.push('A wrong code opened a session');
    }
    const begun = Date.now();
    const key = { 'idempotency-key': `verify-${number}` };
    const verified = await this.insist('verify', () => verifyOtp(url, requestId, code, key));
    if (verified?.status !== 200) return this.lost(begun, 'A right code was refused', verified);
    const { sub, sid } = claimsOf(verified.body.accessToken);
    const again = await this.ask('verify again', () => verifyOtp(url, requestId, code));
    if (again.status === 200 && claimsOf(again.body.accessToken).sid !== sid)
      this.broke.push('One code opened two sessions');
    const refreshed = await this.insist('refresh', () =>
      call('POST', `${url}/auth/refresh`, { refreshToken: verified.body.refreshToken as string }),
    );
    if (refreshed?.status !== 200)
      return this.lost(begun, 'A living session was refused a refresh', refreshed);
    const me = await this.insist('me', () =>
      call('GET', `${url}/auth/me`, undefined, as(refreshed.body.accessToken)),
    );
    if (me?.status !== 200) return this.lost(begun, 'A living session was refused', me);
    if (me.body.id !== sub) this.broke.push('A session changed its user');
    const { refreshToken, accessToken } = refreshed.body as Ended;
    const out = await this.insist('logout', () => call('POST', `${url}/auth/logout`, { refreshToken }));
    if (out?.status === 204) this.ended.push({ accessToken, refreshToken });
    else if (out !== undefined) this.broke.push(`logout was told ${out.status}`);
    return out?.status === 204;
  }

  private async send(url: string, number: string): Promise<Answer> {
    this.sends.set(number, (this.sends.get(number) ?? 0) + 1);
    return this.ask('send', () => sendOtp(url, number));
  }

  private async ask(what: string, send: () => Promise<Answer>): Promise<Answer> {
    const at = Date.now();
    const answer = await send();
    const { status, body, headers } = answer;
    this.seen.push({ what, at, tookMs: Date.now() - at, status, code: String(body?.code ?? '') });
    if (status === 503 && !/^[1-9]\d*$/.test(headers.get('retry-after') ?? ''))
      this.broke.push(`${what} was told 503 without a Retry-After`);
    return answer;
  }

  /** As a client does: while it is told 503 it asks again. */
  private async insist(what: string, send: () => Promise<Answer>): Promise<Answer | undefined> {
    for (;;) {
      const answer = await this.ask(what, send);
      // 409: its first try is still thought to be under way.
      if (answer.status !== 503 && answer.status !== 409) return answer;
      if (this.stopping) return undefined;
      await sleep(100);
    }
  }

  /** Refused though nothing was wrong with it: broken, but where a failover may have lost it. Never a success. */
  private lost(since: number, what: string, answer: Answer | undefined): false {
    if (answer === undefined) return false;
    const told = `${what}: ${answer.status} ${String(answer.body?.code)}`;
    if (!this.faults.some((at) => at > since - LOSS_MS)) {
      // An attempt whose answer was lost is spent, by design.
      const spent = ['otp_attempts_exhausted', 'phone_locked'].includes(String(answer.body?.code));
      const trouble = this.seen.some(({ status, at }) => status === 503 && at >= since);
      if (!(spent && trouble)) this.broke.push(told);
    }
    return false;
  }

  private async checkEnded(): Promise<void> {
    const [url = ''] = this.urls;
    for (const { accessToken, refreshToken } of this.ended) {
      const me = await call('GET', `${url}/auth/me`, undefined, as(accessToken));
      if (me.status === 200) this.broke.push('A session that was logged out works again');
      const refresh = await call('POST', `${url}/auth/refresh`, { refreshToken });
      if (refresh.status === 200) this.broke.push('A session that was logged out was refreshed');
    }
  }

  private checkSms(): void {
    const texted = new Map<string, number>();
    for (const { phoneNumber } of this.upstream.messages)
      texted.set(phoneNumber, (texted.get(phoneNumber) ?? 0) + 1);
    for (const [number, asked] of this.sends)
      if ((texted.get(number) ?? 0) > asked) this.broke.push('A number was texted more often than it asked');
    if (this.limited === undefined) return;
    const got = texted.get(this.limited.number) ?? 0;
    // A count that the replica had not heard of is lost with its primary.
    const most = this.limited.most + this.faults.length * this.running.length;
    if (got > most) this.broke.push(`A number got ${got} SMS of ${this.limited.most}`);
  }
}
