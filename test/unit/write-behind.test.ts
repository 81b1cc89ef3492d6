import { WriteBehind } from '../../src/redis/write-behind';

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

describe('WriteBehind', () => {
  test.each([
    ['the write ends well', true],
    ['the write fails', false],
  ])(
    'an item that arrives during a slow write is written when %s, and so are later items',
    async (_, endsWell) => {
      const written: number[] = [];
      let writes = 0;
      let end: () => void = () => undefined;
      const slow = new Promise<void>((resolve) => (end = resolve));
      const behind = new WriteBehind<number>(
        async (_id, items) => {
          writes += 1;
          if (writes === 1) await slow;
          if (writes === 1 && !endsWell) throw new Error('Redis is away');
          written.push(...items);
        },
        10,
        () => undefined,
      );
      behind.add(1);
      await jest.advanceTimersByTimeAsync(1_000);
      expect(writes).toBe(1);
      behind.add(2);
      // The timer of the second item fires while the first is still being written.
      await jest.advanceTimersByTimeAsync(1_000);
      expect([writes, written]).toEqual([1, []]);
      end();
      await jest.advanceTimersByTimeAsync(2_000);
      expect(written).toEqual([1, 2]);
      behind.add(3);
      await jest.advanceTimersByTimeAsync(1_000);
      expect(written).toEqual([1, 2, 3]);
    },
  );
});
