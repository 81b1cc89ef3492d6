// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import { AbuseControl } from '../../src/abuse/abuse-control';
import { ProofOfWork } from '../../src/abuse/proof-of-work';
import { Alerts } from '../../src/alerts/alerts';
import type { Sent } from '../../src/challenges/challenge';
import { DeviceTokens } from '../../src/devices/device-tokens';
import { ApiError } from '../../src/errors/api-error';
import { Ledger } from '../../src/ledger/ledger';
import { Metrics } from '../../src/metrics/metrics';
import { Sends } from '../../src/otp/sends';
import { PhoneIdentities } from '../../src/phone-number/phone-identity';
import { ProviderError, type Challenge, type OtpProvider } from '../../src/providers/otp-provider';
import { Providers } from '../../src/providers/providers';
import type { Script } from '../../src/redis/script';
import type { Store } from '../../src/redis/store';
import { AdmissionControl } from '../../src/throttling/admission';
import { KEYS } from '../support/keys';
import { otpSteps } from '../support/otp-steps';
import { phoneNumber } from '../support/phone-number';
import { Random } from '../support/random';
import { figures, full } from '../support/scale';
import { settings } from '../support/settings';

// One number, a few Idempotency-Keys, and requests that are stopped before and after each of their commands and calls. A schedule
// decides at random which request goes on, which one dies, stalls or loses an answer, what upstream does, and how much time passes.
// The rooms are the service's own, on a real Redis. Only upstream is the test's.

const SCHEDULES = full ? 1_000 : 150;
const STEPS = 40;
const PRICE = 25;
const KEYS_OF_A_CLIENT = ['schedule-key-one', 'schedule-key-two'];
const PAUSES_MS = [0, 100, 1_000, 20_000, 26_000, 70_000, 310_000, 700_000];

type Fate = 'answer' | 'lose the answer' | 'fail before';

/** A request at a command or a call, which the schedule lets go on. */
interface Waiting {
  name: string;
  go(fate: Fate): void;
}

/** The upstream of one schedule. */
class Upstream {
  /** How often an SMS was accepted, by idempotency key. */
  readonly accepted = new Map<string, number>();

  constructor(private readonly knowsKeys: boolean) {}

  accept(key: string): void {
    const before = this.accepted.get(key) ?? 0;
    this.accepted.set(key, this.knowsKeys ? 1 : before + 1);
  }
}

let redis: SimulatedStores;
beforeAll(async () => {
  redis = await simulatedStores(1);
});
afterAll(() => {
  redis.close();
});

/** Everything about one schedule. */
class Schedule {
  readonly upstream: Upstream;
  readonly waiting: Waiting[] = [];
  /** The pairs of challenge and time of creation that were admitted. */
  readonly challenges = new Set<string>();
  readonly answers: { key: string; delivery: string }[] = [];
  private readonly sends: Sends;
  private readonly ledger: Ledger;
  private readonly end: () => void;
  private readonly running = new Set<Promise<void>>();

  constructor(
    private readonly random: Random,
    contract: 'caller' | 'provider',
  ) {
    const config = settings({
      STARTMESSAGING_CONTRACT: contract,
      LIMIT_PHONE: '3/60,6/600',
      BUDGET_PAISE_PER_DAY: '1000',
      UPSTREAM_DEADLINE_MS: '20000',
    });
    this.upstream = new Upstream(contract === 'provider');
    const store = this.interrupted(redis.stores[0]!);
    const metrics = new Metrics();
    const alerts = new Alerts(metrics, redis.logger);
    const abuse = new AbuseControl(config, store, metrics, redis.logger, alerts);
    this.ledger = new Ledger(settings(), redis.stores[0]!, redis.logger);
    const steps = otpSteps(config, store);
    // As if a hundred repeats were waiting: a repeat in flight is answered at once, so no schedule waits in real time.
    Object.assign(steps.claims, { waiters: 100 });
    this.end = () => {
      steps.claims.onApplicationShutdown();
    };
    const provider = this.provider(contract);
    this.sends = new Sends(
      config,
      steps.challenges,
      new AdmissionControl(config, store, abuse, metrics, alerts),
      abuse,
      new ProofOfWork(config),
      new DeviceTokens(config),
      new PhoneIdentities(config),
      this.ledger,
      new Providers(config, {
        caller: provider,
        provider,
        sendWithSes: undefined,
        testNumbers: provider,
      }),
      metrics,
    );
  }

  /** A request of the client under one of its keys. */
  start(): void {
    const key = this.random.pick(KEYS_OF_A_CLIENT);
    const context = { address: '203.0.113.7', idempotencyKey: key };
    const sent = this.sends.send(phoneNumber('+919876543210'), context).then(
      ({ delivery }) => void this.answers.push({ key, delivery }),
      (error: unknown) => {
        if (!(error instanceof ApiError) || error.code === 'internal_error') throw error;
      },
    );
    const ended = sent.finally(() => this.running.delete(ended));
    this.running.add(ended);
  }

  /** Lets every request end that was not killed. */
  async finish(): Promise<void> {
    for (let idle = 0; idle < 3; idle += 1) {
      for (let next = this.waiting.shift(); next !== undefined; next = this.waiting.shift()) {
        idle = 0;
        next.go('answer');
        await settled();
      }
      await settled();
    }
    this.end();
    await this.ledger.flush();
    await this.ledger.onApplicationShutdown();
  }

  private stop(name: string): Promise<Fate> {
    return new Promise((go) => this.waiting.push({ name, go }));
  }

  /** The store, whose commands wait for the schedule before they run. */
  private interrupted(store: Store): Store {
    const run = async (script: Script, keys: string[], args: (string | number)[]): Promise<unknown> => {
      const fate = await this.stop(script.name);
      if (fate === 'fail before') throw new ApiError('store_unavailable');
      underWay += 1;
      const answer = await store.run(script, keys, args).finally(() => (underWay -= 1));
      if (script.name === 'admission') {
        const { kind, send } = JSON.parse(answer as string) as { kind: string; send?: { createdAt: number } };
        if (kind === 'admitted') this.challenges.add(`${keys[8]}:${send!.createdAt}`);
      }
      if (fate === 'lose the answer') throw new ApiError('store_unavailable');
      return answer;
    };
    return Object.assign(Object.create(store) as Store, { run });
  }

  private provider(contract: 'caller' | 'provider'): OtpProvider {
    const lost = (accepted: 'no' | 'unknown', elsewhere = false): ProviderError =>
      new ProviderError(new ApiError('upstream_unavailable'), accepted, elsewhere);
    const send = async ({ idempotencyKey }: Challenge): Promise<Sent> => {
      const fate = await this.stop('upstream');
      if (fate === 'fail before') throw lost('no');
      const arrives = fate === 'answer' || this.random.chance(0.5);
      if (arrives) this.upstream.accept(idempotencyKey);
      if (fate === 'answer') return { delivery: 'accepted', upstreamId: idempotencyKey };
      if (contract === 'caller') return { delivery: 'unknown' };
      throw lost('unknown');
    };
    return {
      name: 'startmessaging',
      resendsCode: contract === 'caller',
      supportsIdempotencyKeys: contract === 'provider',
      send,
      verify: () => Promise.resolve(false),
    };
  }
}

/** How many commands Redis has not answered. */
let underWay = 0;
/** Until no request goes on by itself. */
async function settled(): Promise<void> {
  do await new Promise(setImmediate);
  while (underWay > 0);
  await new Promise(setImmediate);
}

describe.each(['caller', 'provider'] as const)('random schedules of sends under %s', (contract) => {
  it(
    `no schedule of crashes, stalls, lost answers and expiries sends a second SMS for one admission, sends one unpaid, or charges twice under ${contract}`,
    async () => {
      const seed = Number(process.env.FC_SEED ?? Date.now() % 1_000_000);
      const totals = { sent: 0, accepted: 0, unknown: 0, killed: 0, refunded: 0 };
      for (let run = 0; run < SCHEDULES; run += 1) {
        await redis.clock.empty();
        const random = new Random(seed + run);
        const schedule = new Schedule(random, contract);
        const trace: string[] = [];
        for (let step = 0; step < STEPS; step += 1) {
          const dice = random.next();
          const { waiting } = schedule;
          if (waiting.length === 0 || dice < 0.15) {
            schedule.start();
            trace.push('start');
          } else if (dice < 0.25) {
            const ms = random.pick(PAUSES_MS);
            await redis.clock.pass(ms);
            trace.push(`${ms} ms`);
          } else {
            const [next] = waiting.splice(random.below(waiting.length), 1);
            const fate = random.next();
            if (fate < 0.08) {
              // Its process is gone: it never goes on.
              totals.killed += 1;
              trace.push(`kill at ${next!.name}`);
            } else {
              const what: Fate = fate < 0.18 ? 'fail before' : fate < 0.28 ? 'lose the answer' : 'answer';
              trace.push(`${next!.name}: ${what}`);
              next!.go(what);
            }
          }
          await settled();
        }
        await schedule.finish();

        const events = (await redis.raw.xrange(KEYS.ledger, '-', '+')).map(([, flat]) => flat[1]);
        const sent = events.filter((event) => event === 'sent').length;
        const refunded = events.filter((event) => event === 'refunded').length;
        const paid = sent - refunded;
        const { accepted } = schedule.upstream;
        const messages = [...accepted.values()].reduce((sum, count) => sum + count, 0);
        const charged = Object.values(await redis.raw.hgetall(KEYS.quarters));
        const facts = { seed, run, trace };
        expect({ ...facts, doubled: [...accepted].filter(([, count]) => count > 1) }).toEqual({
          ...facts,
          doubled: [],
        });
        expect({ ...facts, unpaid: Math.max(0, messages - paid) }).toEqual({ ...facts, unpaid: 0 });
        expect({ ...facts, twice: Math.max(0, paid - schedule.challenges.size) }).toEqual({
          ...facts,
          twice: 0,
        });
        expect({ ...facts, sum: charged.reduce((sum, paise) => sum + Number(paise), 0) }).toEqual({
          ...facts,
          sum: paid * PRICE,
        });
        totals.sent += sent;
        totals.refunded += refunded;
        totals.accepted += messages;
        totals.unknown += schedule.answers.filter(({ delivery }) => delivery === 'unknown').length;
      }
      figures(
        `send schedules (${contract}): ${SCHEDULES}, seed ${seed}, admitted ${totals.sent}, refunded ${totals.refunded}, SMS ${totals.accepted}, answers of unknown fate ${totals.unknown}, requests killed ${totals.killed}`,
      );
      // The schedules reach what they are about.
      for (const count of Object.values(totals))
        expect(count).toBeGreaterThan(contract === 'caller' ? 10 : -1);
    },
    full ? 1_200_000 : 120_000,
  );
});
