import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { Redis } from 'ioredis';
import { call, login, startWorld, type Answer, type World } from '../support/world';

const GRACE_S = 60;
const IDLE_S = 1_000;
const MAX_S = 3_000;
const BASIC = { authorization: `Basic ${Buffer.from('api:introspection-secret').toString('base64')}` };

let world: World;
let raw: Redis;
let keys: string;

beforeAll(async () => {
  // Replicas share their keys.
  keys = mkdtempSync(join(tmpdir(), 'otp-login-keys-'));
  execFileSync(process.execPath, [join(__dirname, '../../scripts/keys.mjs'), keys]);
  world = await startWorld({
    variables: {
      JWT_KEYS_DIR: keys,
      INTROSPECTION_CLIENTS: 'api:introspection-secret',
      REFRESH_GRACE_SECONDS: String(GRACE_S),
      SESSION_IDLE_TTL_SECONDS: String(IDLE_S),
      SESSION_MAX_TTL_SECONDS: String(MAX_S),
      STARTMESSAGING_CONTRACT: 'caller',
    },
    count: 2,
  });
  world.upstream.settings.balance = 1e6;
  raw = new Redis(world.redis.url);
});
afterAll(async () => {
  raw.disconnect();
  await world.close();
  rmSync(keys, { recursive: true });
});

/** What a session is, in as few words as it can be said: nothing here knows how the service keeps it. */
class Model {
  newest = 0;
  rotatedAt = -Infinity;
  alive = true;
  now = 0;
  usedAt = 0;
  /** The number of the token that a use of token `n` is answered with, or undefined: refused. */
  refresh(n: number): number | undefined {
    if (!this.lives()) return undefined;
    // Whole seconds here, and a few milliseconds more there: what is as old as the grace is older.
    if (n === this.newest - 1 && this.now - this.rotatedAt < GRACE_S) return this.newest;
    if (n < this.newest) this.alive = false;
    if (!this.alive) return undefined;
    this.newest = n + 1;
    this.rotatedAt = this.usedAt = this.now;
    return this.newest;
  }
  lives(): boolean {
    return this.alive && this.now - this.usedAt < IDLE_S && this.now < MAX_S;
  }
}

type Step =
  | { do: 'refresh'; back: number; at: number; lost: boolean }
  | { do: 'race'; back: number; times: number }
  | { do: 'wait'; seconds: number }
  | { do: 'failover' }
  | { do: 'look'; at: number }
  | { do: 'end'; by: 'logout' | 'one' | 'all' | 'revoke' };

const at = fc.nat(1);
const steps = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constant('refresh' as const),
        back: fc.constantFrom(0, 0, 0, 1, 1, 2, 4),
        at,
        lost: fc.boolean(),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant('race' as const),
        back: fc.constantFrom(0, 0, 1),
        times: fc.integer({ min: 2, max: 6 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('wait' as const),
        seconds: fc.constantFrom(1, 30, 59, 62, 500, 999, 1_001),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('failover' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('look' as const), at }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('end' as const),
        by: fc.constantFrom('logout' as const, 'one' as const, 'all' as const, 'revoke' as const),
      }),
    },
  ),
  { minLength: 3, maxLength: 18 },
) as fc.Arbitrary<Step[]>;

/** One session, the service and the model side by side. */
class Lineage {
  readonly model = new Model();
  /** Token n at place n, as far as any client was ever told. */
  readonly tokens: string[];
  private readonly record: string;
  private access: string;

  constructor({ body }: Answer) {
    this.tokens = [body.refreshToken as string];
    this.access = body.accessToken as string;
    const sid = JSON.parse(Buffer.from(this.access.split('.')[1] ?? '', 'base64url').toString())
      .sid as string;
    this.record = `otp-login:{${String(body.user.id)}}:session:${sid}`;
  }

  async run(step: Step): Promise<void> {
    switch (step.do) {
      case 'refresh':
        return this.refresh([Math.max(0, this.tokens.length - 1 - step.back)], [step.at], step.lost);
      case 'race': {
        const n = Math.max(0, this.tokens.length - 1 - step.back);
        return this.refresh(Array<number>(step.times).fill(n), [0, 1]);
      }
      case 'wait':
        return this.wait(step.seconds);
      case 'failover':
        return this.failover();
      case 'look':
        return this.look(step.at);
      case 'end':
        return this.end(step.by);
    }
  }

  /** `lost`: the service answered, and the client never heard it. */
  private async refresh(ns: number[], instances: number[], lost = false): Promise<void> {
    const answers = await Promise.all(
      ns.map((n, i) =>
        call('POST', `${world.instances[instances[i % instances.length] ?? 0]?.url ?? ''}/auth/refresh`, {
          refreshToken: this.tokens[n],
        }),
      ),
    );
    // Of several uses at once each is answered as if they came one by one: the first decides for all.
    for (const [i, answer] of answers.entries()) {
      const expected = this.model.refresh(ns[i] ?? 0);
      expect(answer.status).toBe(expected === undefined ? 401 : 200);
      if (expected === undefined || (lost && expected === this.tokens.length)) continue;
      this.tokens[expected] ??= answer.body.refreshToken as string;
      // Byte for byte, and so at most one living lineage.
      expect(answer.body.refreshToken).toBe(this.tokens[expected]);
      this.access = answer.body.accessToken as string;
    }
  }

  /** Time passes for the model, and the record grows older by as much. */
  private async wait(seconds: number): Promise<void> {
    this.model.now += seconds;
    const ms = seconds * 1_000;
    if ((await raw.hexists(this.record, 'authenticated')) === 0) return;
    await raw.hincrby(this.record, 'authenticated', -ms);
    if (await raw.hexists(this.record, 'rotated')) await raw.hincrby(this.record, 'rotated', -ms);
    await raw.pexpire(this.record, Math.max(1, (await raw.pttl(this.record)) - ms));
    if (!this.model.lives()) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** The last rotation is lost with a primary; whoever was answered holds a token one ahead of the store. */
  private async failover(): Promise<void> {
    if (!this.model.lives() || this.model.newest === 0) return;
    await raw.hincrby(this.record, 'counter', -1);
    // The client goes on with what it was told, and the store catches up.
    this.model.newest -= 1;
    await this.refresh([this.tokens.length - 1], [0]);
  }

  private async look(instance: number): Promise<void> {
    const url = world.instances[instance]?.url ?? '';
    const me = await call('GET', `${url}/auth/me`, undefined, { authorization: `Bearer ${this.access}` });
    expect([me.status, me.body.code]).toEqual(
      this.model.lives() ? [200, undefined] : [401, expect.anything()],
    );
    const form = { 'content-type': 'application/x-www-form-urlencoded', ...BASIC };
    const active = async (token: string): Promise<boolean> =>
      (await call('POST', `${url}/oauth/introspect`, `token=${token}`, form)).body.active as boolean;
    expect(await active(this.access)).toBe(this.model.lives());
    for (const [n, token] of this.tokens.entries()) {
      expect(await active(token)).toBe(this.model.lives() && n === this.model.newest);
    }
  }

  private async end(by: 'logout' | 'one' | 'all' | 'revoke'): Promise<void> {
    const headers = { authorization: `Bearer ${this.access}` };
    const sid = this.record.split(':').at(-1) ?? '';
    const status = this.model.lives() ? 204 : 401;
    const token = this.tokens.at(-1) ?? '';
    if (by === 'logout') {
      expect((await call('POST', `${world.url}/auth/logout`, { refreshToken: token })).status).toBe(204);
    } else if (by === 'revoke') {
      const form = { 'content-type': 'application/x-www-form-urlencoded' };
      expect((await call('POST', `${world.url}/oauth/revoke`, `token=${token}`, form)).status).toBe(200);
    } else {
      const path = by === 'one' ? `/auth/sessions/${sid}` : '/auth/sessions';
      expect((await call('DELETE', world.url + path, undefined, headers)).status).toBe(status);
    }
    this.model.alive = false;
  }
}

it('whatever clients, thieves, failovers and time do, the service and the model agree', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (sequence) => {
      const lineage = new Lineage(await login(world));
      for (const step of sequence) await lineage.run(step);
      await lineage.run({ do: 'look', at: 0 });
      await lineage.run({ do: 'refresh', back: 0, at: 1, lost: false });
    }),
    { numRuns: 200, endOnFailure: false },
  );
}, 120_000);
