import { Breaker } from '../../src/upstream/breaker';

const CALL = { down: false };
const DOWN = { down: true };

let told: boolean[];
let breaker: Breaker;

beforeEach(() => {
  jest.useFakeTimers();
  told = [];
  breaker = new Breaker((open) => told.push(open));
});
afterEach(() => {
  jest.useRealTimers();
});

/** Makes a call that ends at once; whether it was made. */
const make = async (result: { down: boolean }): Promise<boolean> =>
  (await breaker.run(() => Promise.resolve(result))) !== undefined;

async function makeAll(result: { down: boolean }, times: number, everyMs = 0): Promise<void> {
  for (let i = 0; i < times; i += 1) {
    expect(await make(result)).toBe(true);
    jest.advanceTimersByTime(everyMs);
  }
}

describe('a breaker opens', () => {
  test('the breaker opens after twenty failures in a row, not after nineteen, however slowly they come', async () => {
    await makeAll(DOWN, 19, 60_000);
    expect([breaker.open, told]).toEqual([false, []]);
    await makeAll(DOWN, 1);
    expect([breaker.open, told]).toEqual([true, [true]]);
  });

  test('the breaker stays closed when a call worked in between', async () => {
    await makeAll(DOWN, 19, 60_000);
    await makeAll(CALL, 1);
    await makeAll(DOWN, 19, 60_000);
    expect(breaker.open).toBe(false);
  });

  test('the breaker opens when 18 of 20 calls within ten seconds failed, two of them working in between', async () => {
    await makeAll(DOWN, 9, 100);
    await makeAll(CALL, 2, 100);
    await makeAll(DOWN, 8, 100);
    expect(breaker.open).toBe(false);
    await makeAll(DOWN, 1);
    expect(breaker.open).toBe(true);
  });

  test('the breaker stays closed when 17 of 20 calls failed', async () => {
    await makeAll(DOWN, 9, 100);
    await makeAll(CALL, 3, 100);
    await makeAll(DOWN, 8, 100);
    expect(breaker.open).toBe(false);
  });

  test('the breaker does not count failures older than ten seconds, also when no call was made since', async () => {
    await makeAll(DOWN, 17, 10);
    await makeAll(CALL, 1);
    jest.advanceTimersByTime(10_001);
    await makeAll(DOWN, 2);
    expect(breaker.open).toBe(false);
  });
});

describe('an open breaker', () => {
  beforeEach(() => makeAll(DOWN, 20));

  test('an open breaker makes no call and answers at once', async () => {
    for (let second = 0; second < 5; second += 1) {
      for (let i = 0; i < 10; i += 1) expect(await make(CALL)).toBe(false);
      jest.advanceTimersByTime(999);
    }
  });

  test('an open breaker lets one call through after five seconds, and other calls do not wait for it', async () => {
    jest.advanceTimersByTime(5_000);
    let answer!: (result: { down: boolean }) => void;
    const probe = breaker.run(() => new Promise<{ down: boolean }>((resolve) => (answer = resolve)));
    for (let i = 0; i < 10; i += 1) expect(await make(CALL)).toBe(false);
    expect([breaker.open, told]).toEqual([true, [true]]);
    answer(CALL);
    expect(await probe).toEqual(CALL);
    expect([breaker.open, told]).toEqual([false, [true, false]]);
  });

  test('an open breaker stays open for five more seconds after a failed probe, and reports nothing new', async () => {
    for (let probes = 0; probes < 3; probes += 1) {
      jest.advanceTimersByTime(4_999);
      expect(await make(DOWN)).toBe(false);
      jest.advanceTimersByTime(1);
      expect(await make(DOWN)).toBe(true);
      expect(await make(DOWN)).toBe(false);
    }
    expect(told).toEqual([true]);
  });

  test('a breaker that closes starts to count afresh', async () => {
    jest.advanceTimersByTime(5_000);
    await makeAll(CALL, 1);
    await makeAll(DOWN, 19);
    expect([breaker.open, told]).toEqual([false, [true, false]]);
    await makeAll(DOWN, 1);
    expect([breaker.open, told]).toEqual([true, [true, false, true]]);
  });

  test('an open breaker probes in time also when the wall clock was put back', async () => {
    jest.setSystemTime(Date.now() - 3_600_000);
    jest.advanceTimersByTime(5_000);
    expect(await make(CALL)).toBe(true);
    expect(breaker.open).toBe(false);
  });

  test('an open breaker is not closed by a call that was made before it opened', async () => {
    const other = new Breaker();
    let answer!: (result: { down: boolean }) => void;
    const slow = other.run(() => new Promise<{ down: boolean }>((resolve) => (answer = resolve)));
    for (let i = 0; i < 20; i += 1) await other.run(() => Promise.resolve(DOWN));
    answer(CALL);
    await slow;
    expect(other.open).toBe(true);
  });
});
