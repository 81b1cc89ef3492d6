// What `bench/load.mjs` prints of what it measured, and what follows from it for a replica, a shard of Redis and a day.

/** What a core may be used to: the rest is for bursts, and for the turns in which garbage is collected. */
const USE = 0.6;

/** How people are taken to behave, for the table at the end: change it to what yours do. */
const PEOPLE_ARE = {
  /** Of a day's logins the part in its busiest hour, and how far that hour's busiest minute is above its mean. */
  busiestHour: 0.1,
  busiestMinute: 2,
  smsALogin: 1.3,
  refreshesALogin: 10,
  /** `/auth/me` or introspection, of resource servers that do not verify tokens by themselves. */
  looksALogin: 100,
  /** Who logged in within 30 days, of each that logs in on a day. */
  aMonth: 10,
};
const LOGINS_A_DAY = [10_000, 100_000, 500_000, 1_000_000];

/** Prints the table of costs, what follows at {@link USE}, what stays in Redis, and what so many logins a day need. */
export function report(measured) {
  const row = (name, ...cells) =>
    console.log(name.padEnd(20) + cells.map((cell) => cell.padStart(14)).join(''));
  row('a request', 'service ms', 'main thread', 'Redis us', 'round trips', 'bytes to', 'bytes from');
  const costs = [
    ['send, caller', measured.caller.kinds.send],
    ['send, provider', measured.provider.kinds.send],
    ['verify, caller', measured.caller.kinds.verify],
    ['verify, provider', measured.provider.kinds.verify],
    ...['refresh', 'me', 'introspect'].map((name) => [name, measured.caller.kinds[name]]),
    ['nothing, a second', measured.caller.idle],
  ];
  for (const [name, cost] of costs) {
    row(
      name,
      cost.serviceMs.toFixed(2),
      cost.mainMs.toFixed(2),
      (cost.redisMs * 1_000).toFixed(0),
      cost.steps.toFixed(2),
      cost.toRedis.toFixed(0),
      cost.fromRedis.toFixed(0),
    );
  }

  console.log(`\nat ${USE * 100} % of a core, a second`);
  row('', 'a replica', 'a Redis');
  const both = ({ send, verify }, key) => send[key] + verify[key];
  const rates = [
    ...costs.slice(0, -1).map(([name, cost]) => [name, cost.serviceMs, cost.redisMs]),
    ...Object.entries(measured).map(([contract, { kinds }]) => [
      `logins, ${contract}`,
      both(kinds, 'serviceMs'),
      both(kinds, 'redisMs'),
    ]),
  ];
  for (const [name, ...ms] of rates) row(name, ...ms.map((cost) => ((USE * 1_000) / cost).toFixed(0)));

  const { kinds, logins, grown } = measured.caller.kept;
  console.log('\nleft in Redis, caller                 of a login bytes each  for hours');
  for (const { kind, keys, bytes, ttlMs, entries } of kinds) {
    const count = entries || keys;
    const cells = [(count / logins).toFixed(2), (bytes / count).toFixed(0), (ttlMs / 3_600_000).toFixed(2)];
    console.log(kind.padEnd(38) + cells.map((cell) => cell.padStart(10)).join(' '));
  }
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const tables = (grown - sum(kinds.map(({ bytes }) => bytes))) / sum(kinds.map(({ keys }) => keys));
  console.log(
    `used_memory, all that grew: ${(grown / logins).toFixed(0)} bytes a login; ${tables.toFixed(0)} a key are tables`,
  );
  const rss = Object.values(measured).map(({ residentMb }) => residentMb.toFixed(0));
  console.log(`resident after it: ${rss.join(' and ')} MB`);

  console.log(`\ncores of which ${USE * 100} % are used`);
  row('logins a day', 'SMS a second', 'service cores', 'Redis cores', 'Redis MB', 'rupees a day');
  for (const daily of LOGINS_A_DAY) {
    const { busiestHour, busiestMinute, smsALogin, refreshesALogin, looksALogin, aMonth } = PEOPLE_ARE;
    const aSecond = ((daily * busiestHour) / 3_600) * busiestMinute;
    const ofALogin = (key) => {
      const { send, verify, refresh, introspect } = measured.provider.kinds;
      return (
        smsALogin * send[key] + verify[key] + refreshesALogin * refresh[key] + looksALogin * introspect[key]
      );
    };
    // What lives for a month is a person's, what lives for a day a day's, all else the busiest hour's.
    const alive = (hours) => {
      if (hours > 25) return daily * aMonth;
      return hours > 2 ? daily : daily * busiestHour * hours;
    };
    const kept = kinds
      .filter(({ entries }) => entries === 0)
      .map(({ keys, bytes, ttlMs }) => ((bytes + tables * keys) / logins) * alive(ttlMs / 3_600_000));
    // The ledger and the audit have a most.
    const streams = kinds
      .filter(({ entries }) => entries > 0)
      .map(({ kind, bytes, entries }) => (bytes / entries) * (kind.includes('ledger') ? 200_000 : 100_000));
    row(
      daily.toLocaleString('en'),
      (aSecond * smsALogin).toFixed(1),
      ((aSecond * ofALogin('serviceMs')) / (USE * 1_000)).toFixed(2),
      ((aSecond * ofALogin('redisMs')) / (USE * 1_000)).toFixed(2),
      (sum([...kept, ...streams]) / 1e6).toFixed(0),
      (daily * smsALogin * 0.25).toFixed(0),
    );
  }
}
