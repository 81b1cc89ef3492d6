// First: the scripts go by a clock that the test moves.
import { simulatedStores, type SimulatedStores } from '../support/simulated-stores';
import type { Environment } from '../../src/config/config';
import { Metrics } from '../../src/metrics/metrics';
import type { AdmissionControl, AdmissionRequest } from '../../src/throttling/admission';
import { admissionOver, admissionRequest } from '../support/applicant';
import { KEYS } from '../support/keys';
import { outcome } from '../support/outcomes';
import { settings } from '../support/settings';
import type { SimulatedClock } from '../support/simulated-clock';

const HOUR_MS = 3_600_000;

let redis: SimulatedStores;
let clock: SimulatedClock;
beforeAll(async () => {
  redis = await simulatedStores(1);
  ({ clock } = redis);
});
beforeEach(() => clock.empty());
afterAll(() => {
  redis.close();
});

const metrics = new Metrics();
const admissionWith = (variables: Environment): AdmissionControl =>
  admissionOver(
    settings({ ABUSE_CONVERSION: 'enforce', ...variables }),
    redis.stores[0]!,
    metrics,
    redis.logger,
  );

let people = 0;
const newcomer = (more: Partial<AdmissionRequest> = {}): AdmissionRequest =>
  admissionRequest(`newcomer-${(people += 1)}`, { scopes: [], ...more });

/** Sends SMS to new numbers, each a proof of work. Returns what the sends were answered. */
async function send(admission: AdmissionControl, count: number): Promise<Record<string, number>> {
  const answers: Record<string, number> = {};
  for (let i = 0; i < count; i += 1) {
    const answer = await outcome(admission.admit(newcomer({ solution: `solution-${people}` })));
    answers[answer] = (answers[answer] ?? 0) + 1;
  }
  return answers;
}

it('new numbers are challenged when half of the day is spent at a rate that the day cannot sustain, and not before', async () => {
  const admission = admissionWith({ BUDGET_PAISE_PER_DAY: '2400' }); // 96 SMS, four an hour.
  for (let i = 0; i < 48; i += 1)
    expect([i, await outcome(admission.admit(newcomer()))]).toEqual([i, 'done']);
  expect(await outcome(admission.admit(newcomer()))).toBe('challenge_required');
  expect(await outcome(admission.admit(newcomer({ solution: 'one' })))).toBe('done');
  expect(await outcome(admission.admit(newcomer({ returning: true })))).toBe('done');
  expect(await outcome(admission.admit(newcomer({ byDevice: true })))).toBe('done');
  // An hour later the rate is sustainable.
  await clock.pass(HOUR_MS + 60_001);
  for (let i = 0; i < 5; i += 1) expect([i, await outcome(admission.admit(newcomer()))]).toEqual([i, 'done']);
  expect(await outcome(admission.admit(newcomer()))).toBe('challenge_required');
});

it.each([
  ['ABUSE_CONVERSION is observe', { ABUSE_CONVERSION: 'observe', BUDGET_PAISE_PER_DAY: '100' }, 4],
  ['ABUSE_CONVERSION is off', { ABUSE_CONVERSION: 'off', BUDGET_PAISE_PER_DAY: '100' }, 4],
  ['there is no budget of the day', { BUDGET_PAISE_PER_HOUR: '100' }, 4],
])('no new number is challenged for its rate where %s', async (_, variables, sms) => {
  const admission = admissionWith(variables);
  for (let i = 0; i < sms; i += 1)
    expect([i, await outcome(admission.admit(newcomer()))]).toEqual([i, 'done']);
  expect(await outcome(admission.admit(newcomer()))).toBe('sms_unavailable');
});

it('an early challenge counts as none of the abuse control, so that it holds no level', async () => {
  const admission = admissionWith({ BUDGET_PAISE_PER_DAY: '100' });
  const scopes = ['service'];
  for (let i = 0; i < 60; i += 1) await outcome(admission.admit(newcomer({ scopes })));
  const fields = await redis.raw.hkeys(`${KEYS.abuse}:scope:service`);
  expect(fields.filter((field) => field.endsWith(':c'))).toEqual([]);
});

it('an attack at 14 SMS a second, Rs 350 in 103 seconds, leaves newcomers room in each of the next hours of a day with a budget of Rs 500', async () => {
  const admission = admissionWith({ ABUSE_CONVERSION: 'observe', BUDGET_PAISE_PER_DAY: '50000' });
  await redis.raw.set(KEYS.regulars, '1');
  let spent = 0;
  for (let second = 0; second < 103; second += 1) {
    const answers = await send(admission, 14);
    spent += 25 * (answers.done ?? 0);
    await clock.pass(1_000);
  }
  // 70 % of a sixth of the day's budget.
  expect(spent).toBe(5_825);
  expect(await outcome(admission.admit(newcomer({ returning: true })))).toBe('done');
  await clock.pass(HOUR_MS + 60_000);
  for (let i = 0; i < 100; i += 1)
    expect([i, await outcome(admission.admit(newcomer()))]).toEqual([i, 'done']);
});
