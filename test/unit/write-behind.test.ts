import { setTimeout as sleep } from 'node:timers/promises';
import { WriteBehind } from '../../src/redis/write-behind';
import { until } from '../support/world';

describe('what comes while a slow write is under way is written', () => {
  test.each([
    ['the write ends well', 'answered'],
    ['the write fails', 'refused'],
  ])('when %s, and so is what comes later', async (_, first) => {
    const written: number[] = [];
    let writes = 0;
    const behind = new WriteBehind<number>(
      async (_id, items) => {
        writes += 1;
        // Longer than an item waits for company: its timer fires meanwhile.
        if (writes === 1) await sleep(400);
        if (writes === 1 && first === 'refused') throw new Error('Redis is away');
        written.push(...items);
      },
      10,
      () => undefined,
    );
    behind.add(1);
    await until(() => writes === 1);
    behind.add(2);
    await until(() => written.length === 2, 3_000);
    behind.add(3);
    await until(() => written.length === 3, 3_000);
    expect(written).toEqual([1, 2, 3]);
  });
});
