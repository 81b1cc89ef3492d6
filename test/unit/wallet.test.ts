import { unitOf, withReading, type WalletRecord } from '../../src/wallet/wallet-record';
import { assumedUnit, inferUnit, paiseOf } from '../../src/wallet/wallet-unit';

describe('the unit of the wallet', () => {
  test.each([
    [0.25, 0.25, 'rupees'],
    [250_000, 0.25, 'micro_rupees'],
    // Another service spends from the same wallet, or an SMS was not yet taken from the balance.
    [10, 0.25, 'rupees'],
    [250_000, 2, 'micro_rupees'],
    [0, 0.25, undefined],
    [-500, 0.25, undefined],
    [0.25, 0, undefined],
    [25, 0.001, undefined],
  ])('the unit of a balance that lost %p while SMS cost Rs %p is %p', (taken, spent, unit) => {
    expect(inferUnit(taken, spent)).toBe(unit);
  });

  test.each([
    ['100', 'rupees'],
    ['100.2500', 'rupees'],
    ['9999999.5', 'rupees'],
    ['999999', 'rupees'],
    ['100000000', 'micro_rupees'],
  ])('the unit of the balance %p is assumed to be %p before any SMS was accepted', (balance, unit) => {
    expect(assumedUnit(balance)).toBe(unit);
  });

  test.each([
    ['1.15', 'rupees', 115],
    ['115', 'paise', 115],
    ['1150000', 'micro_rupees', 115],
    ['-2', 'rupees', -200],
  ] as const)('the balance %p in %s is %p paise', (balance, unit, paise) => {
    expect(paiseOf(balance, unit)).toBe(paise);
  });

  test('the setting wins over the inferred unit, and the inferred unit over the assumed one', () => {
    expect(unitOf('7', 'paise', { inferred: 'rupees' })).toEqual({ unit: 'paise', from: 'setting' });
    expect(unitOf('7', undefined, { inferred: 'micro_rupees' })).toMatchObject({ from: 'inferred' });
    expect(unitOf('7', undefined, {})).toEqual({ unit: 'rupees', from: 'assumed' });
  });
});

describe('the readings of the wallet', () => {
  const reading = (balance: string) => ({ at: 0, balance, day: '2026-11-28', cost: 0 });
  const read = (record: WalletRecord, balance: string, spent: number) =>
    withReading(record, reading(balance), spent);

  test('the unit is inferred over several readings, until one shows what an SMS took away', () => {
    let record = read({}, '900000', 0);
    // The SMS is charged in the ledger, and not yet at StartMessaging.
    record = read(record, '900000', 2_500);
    expect(record.inferred).toBeUndefined();
    record = read(record, '650000', 2_500);
    expect(record.inferred).toBe('micro_rupees');
  });

  test('a recharge begins a new comparison and keeps the inferred unit', () => {
    let record = read({ inferred: 'rupees', base: reading('10') }, '1000', 2_500);
    expect(record).toMatchObject({ inferred: 'rupees', base: { balance: '1000' } });
    record = read({ base: reading('10') }, '1000', 2_500);
    expect(read(record, '999.75', 2_500).inferred).toBe('rupees');
  });
});
