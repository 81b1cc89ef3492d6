import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Emulator, Fault, FaultScript } from '../../src/emulator/emulator';
import { ChaosClient, type Surroundings } from './chaos-clients';
import { ADMIN_TOKENS, operate, signingKeys } from './crowd';
import { freePort } from './free-port';
import { HANG_MS } from './hang';
import type { History, Rules } from './history';
import { KEYS, partsOf } from './keys';
import type { Build, Run } from './processes';
import { Random } from './random';
import { RedisCluster } from './redis-cluster';
import { service as serviceUnderTest } from './service';
import { API_KEY, call, SECRET, SUBJECT_SECRET, until, type Variables } from './world';

const INSTANCES = 3;
const CLIENTS = 20;
const SHARDS = 3;

/** What bites is chosen to bite: the shared numbers are asked for more than they may have. */
export const RULES: Rules = {
  phone: [
    { count: 3, seconds: 15 },
    { count: 40, seconds: 300 },
  ],
  service: [
    { count: 8, seconds: 1 },
    { count: 90, seconds: 20 },
  ],
  pricePaise: 25,
  budgetPaise: 100_000,
  attempts: 3,
  sessionsPerUser: 10,
  codeLifeMs: 300_000,
  graceMs: 60_000,
  // A second and four are promised. A machine that is busy with other tests takes longer; what hangs takes this long.
  storeMs: HANG_MS,
  upstreamMs: HANG_MS,
  upstreamDeadlineMs: 3_000,
  healMs: HANG_MS,
};

const limits = (list: Rules['phone']): string =>
  list.map(({ count, seconds }) => `${count}/${seconds}`).join(',');

export interface ChaosOptions {
  contract: History['contract'];
  seed: number;
  seconds: number;
  killEveryMs: number;
  failOverEveryMs: number;
}

type Befallen = 'send' | 'verify' | 'message';

const after = (status: number): Fault => ({ kind: 'error', status, code: 'INTERNAL_ERROR', when: 'after' });

/** Trouble is told four times as often as a refusal: after a refusal there is nothing to get wrong. */
const TROUBLES: FaultScript['fault'][] = [
  'server-error',
  'bad-gateway',
  'unavailable',
  'timeout-before',
  'timeout-after',
  'reset-before',
  'reset-after',
  'slow',
  'trickle',
  'cut',
  'malformed',
  'huge',
  after(500),
  { kind: 'html', status: 502, when: 'after' },
  { kind: 'slow', delayMs: 400 },
];
const NONSENSE: FaultScript['fault'][] = [
  'gzip-bomb',
  'tutorial-error',
  'redirect',
  'route-missing',
  'bad-key',
  'suspended-key',
  'not-onboarded',
  'throttled',
  'throttled-no-hint',
  'throttled-until',
];
const REFUSALS: Record<Befallen, FaultScript['fault'][]> = {
  send: [
    'wallet-empty',
    'payment-required',
    'number-limit',
    'sms-refused',
    'phone-refused',
    'variables-missing',
    'template-refused',
    'duplicate-key',
    'not-delivered',
  ],
  verify: ['wrong-code', 'unverified', 'code-expired', 'unknown-request', 'verified-text'],
  message: [{ kind: 'delivery', status: 'failed', failureReason: 'Absent subscriber' }],
};
/** Nothing at all goes wrong with the call that it befalls. */
const CALM: Fault = { kind: 'slow', delayMs: 0 };
const AHEAD = 60;

/** Three instances, a Redis Cluster and StartMessaging, all of them in trouble, and people who go on trying. */
export class Chaos {
  private readonly random: Random;
  private readonly instances: { run: Run; port: number; url: string }[] = [];
  private readonly instanceKills: History['instanceKills'] = [];
  private readonly failovers: History['failovers'] = [];
  private readonly added: Record<Befallen, number> = { send: 0, verify: 0, message: 0 };
  private readonly logs: string[] = [];
  private readonly world: Surroundings;
  private readonly clients: ChaosClient[];
  /** The highest resident memory of an instance that was seen, in MiB. */
  memoryMiB = 0;

  private constructor(
    private readonly options: ChaosOptions,
    private readonly build: Build,
    private readonly cluster: RedisCluster,
    private readonly upstream: Emulator,
    private readonly variables: Variables,
    ports: number[],
  ) {
    this.random = new Random(options.seed);
    this.world = {
      urls: ports.map((port) => `http://127.0.0.1:${port}`),
      upstream,
      shared: ['+919810000001', '+919810000002', '+919810000003'],
      calls: [],
      secrets: new Set(),
    };
    this.clients = Array.from({ length: CLIENTS }, (_, i) => {
      const random = new Random(options.seed * 1_000 + i);
      return new ChaosClient(`c${String(i).padStart(2, '0')}`, ownNumber(i), this.world, random);
    });
  }

  static async start(build: Build, options: ChaosOptions): Promise<Chaos> {
    const [cluster, upstream] = await Promise.all([
      RedisCluster.start(),
      serviceUnderTest().startEmulator({ contract: options.contract }),
    ]);
    // What is empty now and then is a fault of its own.
    upstream.settings.balance = 1_000_000;
    const ports: number[] = [];
    while (ports.length < INSTANCES) ports.push(await freePort());
    const { phone, service, budgetPaise, upstreamDeadlineMs } = RULES;
    const chaos = new Chaos(
      options,
      build,
      cluster,
      upstream,
      {
        NODE_ENV: 'test',
        HOST: '127.0.0.1',
        SECRET,
        SUBJECT_SECRET,
        ADMIN_TOKENS,
        JWT_KEYS_DIR: signingKeys(),
        REDIS_URL: cluster.url,
        STARTMESSAGING_API_KEY: API_KEY,
        STARTMESSAGING_BASE_URL: upstream.url,
        STARTMESSAGING_CONTRACT: options.contract,
        UPSTREAM_RETRY_DELAY_MS: '50',
        UPSTREAM_TIMEOUT_MS: '1000',
        UPSTREAM_CONNECT_TIMEOUT_MS: '500',
        UPSTREAM_DEADLINE_MS: String(upstreamDeadlineMs),
        ACCESS_TOKEN_TTL_SECONDS: '120',
        REFRESH_GRACE_SECONDS: String(RULES.graceMs / 1_000),
        SESSIONS_PER_USER: String(RULES.sessionsPerUser),
        OTP_MAX_ATTEMPTS: String(RULES.attempts),
        OTP_TTL_SECONDS: String(RULES.codeLifeMs / 1_000),
        LIMIT_PHONE: limits(phone),
        LIMIT_GLOBAL: limits(service),
        LIMIT_IP: '1000000/60',
        LIMIT_VERIFY_IP: '1000000/60',
        LIMIT_FAILED_CODES: '40/60,1000/3600',
        BUDGET_PAISE_PER_HOUR: String(budgetPaise),
        SMS_PRICE_PAISE: String(RULES.pricePaise),
      },
      ports,
    );
    try {
      for (const port of ports) chaos.instances.push(await chaos.serve(port));
    } catch (error) {
      await chaos.stop();
      throw error;
    }
    return chaos;
  }

  /** People, faults, kills and failovers for as long as it was asked for. Everything runs again when it resolves. */
  async run(): Promise<void> {
    const end = Date.now() + this.options.seconds * 1_000;
    let failed = false;
    const over = (): boolean => failed || Date.now() >= end;
    this.befall();
    const feeding = setInterval(() => {
      this.befall();
    }, 20);
    try {
      await Promise.all([
        ...this.clients.map((client) => client.live(over)),
        this.killInstances(end),
        this.failOver(end),
      ]);
    } catch (error) {
      failed = true;
      throw error;
    } finally {
      clearInterval(feeding);
    }
    await call('DELETE', `${this.upstream.url}/_emulator/faults`);
  }

  /** The clients that cannot log in any more, with a phone that was not used before. */
  async lockedOut(): Promise<number[]> {
    const end = Date.now() + HANG_MS;
    const came = await Promise.all(
      this.clients.map((client, i) => client.logsIn(ownNumber(CLIENTS + i), end)),
    );
    this.measure();
    return came.flatMap((logged, i) => (logged ? [] : [i]));
  }

  async history(): Promise<History> {
    const { calls } = this.world;
    const tags = new Set(['admission']);
    for (const { request, given, got } of calls) {
      if (request !== undefined) tags.add(partsOf(request).pseudonym);
      for (const token of [given, got]) if (token) tags.add(token.subject);
    }
    const shards = new Map<string, number>();
    for (const tag of tags) {
      const slot = await this.cluster.slotOf(`{${tag}}`);
      shards.set(tag, Math.min(SHARDS - 1, Math.floor((slot + 0.5) / (16_384 / SHARDS))));
    }
    const usage = await operate(this.world.urls[0] ?? '', 'GET', 'usage');
    return {
      contract: this.options.contract,
      calls,
      messages: this.upstream.messages.map((sms) => ({
        at: Date.parse(sms.createdAt),
        number: sms.phoneNumber,
        code: sms.code,
        key: sms.idempotencyKey ?? '',
        failed: sms.status === 'failed',
      })),
      looks: this.upstream.calls
        .filter(({ path }) => path === '/otp/verify')
        .map(({ at, body, status = 0, accepted }) => ({
          at: Date.parse(at),
          code: String((body as { otpCode?: unknown }).otpCode),
          status,
          accepted,
        })),
      ledger: await this.ledger(),
      usage: usage.body.total,
      instanceKills: this.instanceKills,
      failovers: this.failovers,
      shardOf: (tag) => shards.get(tag),
      rules: RULES,
    };
  }

  /** What is wrong with what lies in Redis: keys that never expire, and texts that must not be there. */
  async faultsOfRedis(): Promise<string[]> {
    const { secrets } = this.world;
    const numbers = [...this.world.shared, ...Array.from({ length: 2 * CLIENTS }, (_, i) => ownNumber(i))];
    const codes = new Set(this.upstream.messages.map(({ code }) => code));
    const faults: string[] = [];
    for (const { key, node } of await this.cluster.keys()) {
      const ttl = Number(await this.cluster.command(node, 'PTTL', key));
      if (ttl === -1) faults.push(`${key} has no time to live`);
      const text = `${key} ${await this.contents(node, key)}`;
      for (const number of numbers) if (text.includes(number.slice(3))) faults.push(`${key} holds a number`);
      // A code stands by itself, or in any other part of a longer figure.
      for (const [word] of text.matchAll(/(?<![\w-])\d{6}(?![\w-])/g))
        if (codes.has(word)) faults.push(`${key} holds a code`);
      for (const [word] of text.matchAll(/[\w.-]{60,}/g))
        if (secrets.has(word)) faults.push(`${key} holds a token`);
    }
    return faults;
  }

  /** Phone numbers and tokens in what the instances wrote. */
  faultsOfLogs(): string[] {
    const text = [...this.logs, ...this.instances.map(({ run }) => run.stdout + run.stderr)].join('\n');
    const faults = [...this.world.secrets].filter((secret) => text.includes(secret)).map(() => 'a token');
    if (/\+91\d{10}/.test(text)) faults.push('a phone number');
    return faults;
  }

  async stop(): Promise<void> {
    await this.build.killAll();
    await Promise.all([this.cluster.stop(), this.upstream.close()]);
  }

  private async serve(port: number): Promise<{ run: Run; port: number; url: string }> {
    const { service: run, url } = await this.build.serve({ ...this.variables, PORT: String(port) });
    return { run, port, url };
  }

  private async killInstances(end: number): Promise<void> {
    const start = Date.now();
    const first = this.random.below(INSTANCES);
    for (let n = 0; ; n++) {
      if (!(await pauseUntil(start + (n + 1) * this.options.killEveryMs, end))) return;
      const i = (first + n) % INSTANCES;
      this.measure();
      const instance = this.instances[i]!;
      const kill = { instance: i, at: Date.now(), until: Infinity };
      this.instanceKills.push(kill);
      await instance.run.kill();
      this.logs.push(instance.run.stdout + instance.run.stderr);
      this.instances[i] = await this.serve(instance.port);
      kill.until = Date.now();
    }
  }

  /** By turns as an operator does it, and as a machine that dies; the dead one comes back as a replica. */
  private async failOver(end: number): Promise<void> {
    const admission = this.shardIndex((await this.cluster.shardOf('{admission}')).primary);
    const start = Date.now();
    for (let n = 0; ; n++) {
      if (!(await pauseUntil(start + (n + 1) * this.options.failOverEveryMs, end))) return;
      const kind = n % 2 === 0 ? 'killed' : 'planned';
      // Where it hurts most first: everything that is sent passes this one.
      const index = n === 0 ? admission : this.random.below(SHARDS);
      await this.cluster.settled();
      const shard = (await this.cluster.shards()).find(({ primary }) => this.shardIndex(primary) === index)!;
      const noted: History['failovers'][number] = { kind, shard: index, at: Date.now(), until: Infinity };
      this.failovers.push(noted);
      if (kind === 'planned') {
        await this.cluster.failOver(shard);
        noted.until = Date.now();
        continue;
      }
      await shard.primary.kill();
      await this.takenOver(index);
      noted.until = Date.now();
      await sleep(2_000);
      await shard.primary.start();
      await this.cluster.settled();
    }
  }

  private async takenOver(index: number): Promise<void> {
    await until(async () => {
      const shards = await this.cluster.shards();
      const its = shards.find(({ primary }) => this.shardIndex(primary) === index);
      return its?.primary.pid !== undefined;
    }, 'the new primary');
  }

  /** A node and its replica are three apart, whichever of them is the primary. */
  private shardIndex(node: RedisCluster['nodes'][number]): number {
    return this.cluster.nodes.indexOf(node) % SHARDS;
  }

  /** Every second call goes wrong: they are scripted ahead of the calls, one by one. */
  private befall(): void {
    for (const on of ['send', 'verify', 'message'] as const) {
      const path = on === 'message' ? '/messages/' : `/otp/${on}`;
      const came = this.upstream.calls.filter((one) => one.path.startsWith(path)).length;
      for (; this.added[on] < came + AHEAD; this.added[on]++) {
        const what = this.random.next();
        const kinds = what < 0.32 ? TROUBLES : what < 0.4 ? NONSENSE : REFUSALS[on];
        this.upstream.fault({ on, fault: what < 0.5 ? this.random.pick(kinds) : CALM });
      }
    }
  }

  private measure(): void {
    for (const { run } of this.instances) {
      const kib = execFileSync('ps', ['-o', 'rss=', '-p', String(run.pid)], { encoding: 'utf8' });
      this.memoryMiB = Math.max(this.memoryMiB, Math.round(Number(kib) / 1_024));
    }
  }

  private async ledger(): Promise<History['ledger']> {
    const { primary } = await this.cluster.shardOf(KEYS.ledger);
    const entries = (await this.cluster.command(primary, 'XRANGE', KEYS.ledger, '-', '+')) as [
      string,
      string[],
    ][];
    return entries.flatMap(([id, flat]) => {
      const field = (name: string): string | undefined => {
        const i = flat.findIndex((text, at) => at % 2 === 0 && text === name);
        return i < 0 ? undefined : flat[i + 1];
      };
      const [event, phone, sms] = [field('event'), field('phone'), field('sms')];
      if (event !== 'sent' && event !== 'refunded') return [];
      const at = Number(id.split('-')[0]);
      return [{ id, event, at, ...(phone && { pseudonym: phone }), ...(sms && { sms }) }];
    });
  }

  private async contents(node: RedisCluster['nodes'][number], key: string): Promise<string> {
    const reads: Record<string, string[]> = {
      string: ['GET', key],
      hash: ['HGETALL', key],
      list: ['LRANGE', key, '0', '-1'],
      zset: ['ZRANGE', key, '0', '-1', 'WITHSCORES'],
      stream: ['XRANGE', key, '-', '+'],
    };
    const type = String(await this.cluster.command(node, 'TYPE', key));
    if (type === 'none') return '';
    const [name, ...args] = reads[type] ?? [];
    if (name === undefined) throw new Error(`${key} is a ${type}, which this test cannot read`);
    return JSON.stringify(await this.cluster.command(node, name, ...args));
  }
}

const ownNumber = (i: number): string => `+9198200${String(10_000 + i)}`;

/** False when the end comes first. */
async function pauseUntil(time: number, end: number): Promise<boolean> {
  await sleep(Math.max(0, Math.min(time, end) - Date.now()));
  return time < end;
}
