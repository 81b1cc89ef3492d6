import type { Emulator } from '../../src/emulator/emulator';
import { bearer } from './tokens';
import { call, freshNumber, sendOtp, textedCode, until, verifyOtp, type Answer } from './world';

/** What those who call the service show. */
export interface Callers {
  operator: string;
  /** `id:secret` */
  client: string;
  testNumber: readonly [number: string, code: string];
}

interface Held {
  accessToken: unknown;
  refreshToken: unknown;
}

/** Ends a round whose next request makes no sense any more. */
class Failed extends Error {}

/**
 * People, resource servers and operators who call two instances without a pause, each step at another instance than the
 * one before: what one makes, the other takes. It counts every request, and keeps every one that failed.
 */
export class RotationLoad {
  static readonly KINDS = ['send', 'verify', 'me', 'refresh', 'introspect', 'admin', 'test number'] as const;

  callers: Callers;
  readonly failures: unknown[] = [];
  /** By kind and instance. */
  readonly counts: Record<string, number> = {};
  private readonly rounds = [0, 0, 0];
  private generation = 0;
  private running = true;
  private workers: Promise<void>[] = [];

  constructor(
    private readonly urls: readonly [string, string],
    private readonly upstream: Emulator,
    callers: Callers,
  ) {
    this.callers = callers;
  }

  start(): void {
    this.workers = this.rounds.map((_, worker) => this.work(worker));
  }

  async stop(): Promise<void> {
    this.running = false;
    await Promise.all(this.workers);
  }

  /** Resolves when each worker began and finished another round. */
  async goOn(): Promise<void> {
    const before = [...this.rounds];
    // The round that is under way began before.
    const wentOn = (): boolean => this.rounds.every((count, worker) => count >= (before[worker] ?? 0) + 2);
    await until(wentOn, 'the next rounds of the load');
  }

  /** Every worker logs in anew: afterwards no worker holds a session, or has a request under way, of before. */
  async turnOver(): Promise<void> {
    this.generation += 1;
    await this.goOn();
  }

  private async work(worker: number): Promise<void> {
    let held: Held | undefined;
    let since = this.generation;
    for (let turn = worker; this.running; turn++) {
      // What was decided before the round is for all of it.
      const { generation, callers } = this;
      const [here, there] = turn % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const);
      try {
        if (held === undefined || since !== generation) held = await this.login(here, there);
        since = generation;
        // A session that lives through the rotation, and one that is new.
        for (const session of [held, await this.login(there, here)]) {
          for (const at of [here, there]) {
            await this.ask('me', at, 'GET', '/auth/me', undefined, bearer(session.accessToken));
            const { body } = await this.ask('refresh', at, 'POST', '/auth/refresh', {
              refreshToken: session.refreshToken,
            });
            Object.assign(session, { accessToken: body.accessToken, refreshToken: body.refreshToken });
          }
        }
        for (const at of [here, there]) {
          await this.callIn(at, callers, held);
          // One of them alone: who verifies a code uses up the others that the number was sent.
          if (worker === 0) await this.testLogin(at, callers);
        }
      } catch (error) {
        if (!(error instanceof Failed)) throw error;
        held = undefined;
      }
      this.rounds[worker] = (this.rounds[worker] ?? 0) + 1;
    }
  }

  private async login(here: 0 | 1, there: 0 | 1): Promise<Held> {
    const phoneNumber = freshNumber();
    const sent = await this.told('send', here, sendOtp(this.urls[here], phoneNumber));
    const code = textedCode(this.upstream, phoneNumber);
    const { body } = await this.told('verify', there, verifyOtp(this.urls[there], sent.body.requestId, code));
    return { accessToken: body.accessToken, refreshToken: body.refreshToken };
  }

  private async callIn(at: 0 | 1, { operator, client }: Callers, held: Held): Promise<void> {
    const token = new URLSearchParams({ token: String(held.accessToken) }).toString();
    const { body } = await this.ask('introspect', at, 'POST', '/oauth/introspect', token, {
      'content-type': 'application/x-www-form-urlencoded',
      authorization: `Basic ${Buffer.from(client).toString('base64')}`,
    });
    if (body.active !== true) this.failures.push({ kind: 'introspect', at, body });
    await this.ask('admin', at, 'GET', '/admin/abuse', undefined, bearer(operator));
  }

  private async testLogin(at: 0 | 1, { testNumber: [number, code] }: Callers): Promise<void> {
    const sent = await this.told('test number', at, sendOtp(this.urls[at], number));
    await this.told('test number', at, verifyOtp(this.urls[at], sent.body.requestId, code));
  }

  private ask(
    kind: (typeof RotationLoad.KINDS)[number],
    at: 0 | 1,
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer> {
    return this.told(kind, at, call(method, `${this.urls[at]}${path}`, body, headers));
  }

  private async told(
    kind: (typeof RotationLoad.KINDS)[number],
    at: 0 | 1,
    asked: Promise<Answer>,
  ): Promise<Answer> {
    const name = `${kind} at ${at}`;
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    // No answer at all is a failure like any other.
    const answer = await asked.catch(String);
    if (typeof answer === 'object' && answer.status === 200) return answer;
    const [status, body] = typeof answer === 'object' ? [answer.status, answer.body as unknown] : [answer];
    this.failures.push({ name, when: new Date().toISOString(), status, body });
    throw new Failed();
  }
}
