import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import type { Fault } from '../../src/emulator/emulator';
import { ADMIN_TOKENS, bill, told, under } from '../support/crowd';
import { figures, full } from '../support/scale';
import {
  call,
  freshNumber,
  startInstance,
  startWorld,
  textedCode,
  verifyOtp,
  type Answer,
  type World,
} from '../support/world';

const SENDS = full ? 5_000 : 300;
const AT_ONCE = 30;
const PRICE_PAISE = 25;

let world: World;
afterEach(() => world.close());

const error = (status: number, code: string): Fault => ({ kind: 'error', status, code });
const FAULTS: Fault[] = [
  { kind: 'timeout', when: 'before' },
  { kind: 'timeout', when: 'after' },
  { kind: 'reset', when: 'before' },
  { kind: 'reset', when: 'after' },
  { kind: 'cut' },
  { kind: 'malformed' },
  { kind: 'html', when: 'before' },
  { kind: 'html', when: 'after' },
  { kind: 'huge' },
  { kind: 'slow', delayMs: 1_500 },
  { kind: 'raw', status: 200, body: '' },
  { kind: 'raw', status: 200, body: {}, when: 'after' },
  { kind: 'raw', status: 204, when: 'after' },
  error(500, 'INTERNAL_ERROR'),
  { ...error(500, 'INTERNAL_ERROR'), when: 'after' } as Fault,
  { ...error(504, 'INTERNAL_ERROR'), when: 'after' } as Fault,
  error(503, 'INTERNAL_ERROR'),
  error(402, 'INSUFFICIENT_BALANCE'),
  error(400, 'OTP_SEND_FAILED'),
  error(401, 'UNAUTHORIZED'),
  error(429, 'INTERNAL_ERROR'),
];
// Half of the calls go well: an upstream that is dead is another matter, and answered at once.
const plans = fc.array(fc.option(fc.constantFrom(...FAULTS), { freq: 2 }), { minLength: 1, maxLength: 4 });

/** One send under one key, repeated as a client does until it is answered for good. */
async function sendOnce(phoneNumber: string, url: string): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    const answer = await call('POST', `${url}/auth/send-otp`, { phoneNumber }, under(phoneNumber.slice(1)));
    if (answer.status === 200 || tries === 40) return answer;
    // Polite, so that it outlasts a breaker that opened.
    if (answer.status >= 500) await sleep(Math.min(50 * tries, 1_000));
  }
}

it.each(['caller', 'provider'] as const)(
  'a send under one key is one SMS at most, whatever fault upstream has (%s)',
  async (contract) => {
    world = await startWorld({
      variables: {
        ADMIN_TOKENS,
        STARTMESSAGING_CONTRACT: contract,
        // A busy machine is not an upstream that is dead.
        UPSTREAM_TIMEOUT_MS: '1000',
        UPSTREAM_RETRY_DELAY_MS: '1',
      },
      count: 2,
    });
    // Of verifications only the answer is of interest: this instance waits for upstream.
    const patient = await startInstance({
      REDIS_URL: world.redis.url,
      STARTMESSAGING_BASE_URL: world.upstream.url,
      STARTMESSAGING_CONTRACT: contract,
    });
    world.instances.push(patient);
    world.upstream.settings.balance = SENDS;
    const numbers = Array.from({ length: SENDS }, () => freshNumber());
    const seed = Number(process.env.FC_SEED ?? Date.now() % 1_000_000);
    let faulted = 0;
    const outcomes: Record<string, number> = {};
    for (const [i, plan] of fc.sample(plans, { numRuns: SENDS, seed }).entries()) {
      for (const fault of plan.filter((one) => one !== null)) {
        world.upstream.fault({ on: 'send', phoneNumber: numbers[i] ?? '', fault });
      }
      if (plan[0] !== null) faulted += 1;
    }

    const waiting = [...numbers.entries()];
    const log: string[] = [];
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const [i, phoneNumber] = next;
        const url = world.instances[i % 2]?.url ?? '';
        const answer = await sendOnce(phoneNumber, url);
        outcomes[told(answer)] = (outcomes[told(answer)] ?? 0) + 1;
        const texted = world.upstream.messages.some((message) => message.phoneNumber === phoneNumber);
        if (answer.status !== 200 || !texted || i % 10 !== 0) continue;
        // What was told to be sent, or perhaps sent, can be verified.
        const code = textedCode(world.upstream, phoneNumber);
        let verified = await verifyOtp(patient.url, answer.body.requestId, code);
        // Shed by a machine that stands still: the code was not looked at.
        for (let tries = 0; tries < 10 && verified.status === 503; tries++) {
          await sleep(1_000);
          verified = await verifyOtp(patient.url, answer.body.requestId, code);
        }
        if (verified.status !== 200) log.push(`${phoneNumber}: ${told(verified)}`);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));

    const accepted = new Map<string, number>();
    for (const { phoneNumber } of world.upstream.messages)
      accepted.set(phoneNumber, (accepted.get(phoneNumber) ?? 0) + 1);
    const doubled = [...accepted].filter(([, count]) => count > 1);
    const keys = new Map<string, Set<unknown>>();
    for (const { path, body } of world.upstream.calls) {
      if (path !== '/otp/send') continue;
      const { phoneNumber, idempotencyKey } = body as { phoneNumber: string; idempotencyKey: string };
      keys.set(phoneNumber, (keys.get(phoneNumber) ?? new Set()).add(idempotencyKey));
    }
    const manyKeys = [...keys].filter(([, used]) => used.size > 1);
    const { costPaise } = await bill(world);
    figures(
      `faulted sends (${contract}): sends ${SENDS}, first call faulted ${faulted}, SMS ${world.upstream.messages.length}, doubled ${doubled.length}, seed ${seed}`,
    );

    expect({ seed, doubled, manyKeys, log }).toEqual({ seed, doubled: [], manyKeys: [], log: [] });
    expect(Object.keys(outcomes)).toEqual(['200']);
    // Nothing that was accepted is missing in the bill, and what certainly was not is not in it.
    expect(costPaise).toBeGreaterThanOrEqual(world.upstream.messages.length * PRICE_PAISE);
    expect(costPaise).toBeLessThanOrEqual(SENDS * PRICE_PAISE);
    expect(faulted).toBeGreaterThan(SENDS / 3);
  },
  full ? 1_200_000 : 300_000,
);
