// `npm run bench`: what a session costs in Redis, by Redis's own account. Every user logs in by a code, refreshes
// once, and has the longest names that a session may hold.
import { randomUUID } from 'node:crypto';
import { inSteps, part } from './parts.mjs';
import { dist, login, startWorld } from './world.mjs';

const AT_ONCE = 50;
const TURNS = part(80);
const CLIENT = { device: 'Samsung Internet for Android on Chrome O', address: '2001:db8:abcd::/48' };

const world = await startWorld();
const { app, client } = world;
const tokens = app.get(dist('tokens/tokens.service').TokensService);

const used = async () => Number(/used_memory:(\d+)/.exec(await client.info('memory'))[1]);
const onlySessions = async () => {
  for (const key of await client.keys('*')) if (!/:(session:.*|sessions)$/.test(key)) await client.del(key);
};

// Once before: scripts, buffers and the first table are not a session's.
for (let i = 0; i < 64; i++) await login(world, `+9198${10_000_000 + i}`, CLIENT);
await onlySessions();
await client.flushall();
const before = await used();
await inSteps('memory of a session', TURNS, (turn) =>
  Promise.all(
    Array.from({ length: AT_ONCE }, async (_, at) => {
      const session = await login(world, `+9198${20_000_000 + turn * AT_ONCE + at}`, CLIENT);
      const { refreshToken } = await tokens.issue(session);
      await tokens.refresh(refreshToken, { network: '2001:db8:ffff::/48', idempotencyKey: randomUUID() });
    }),
  ),
);
await onlySessions();
const total = (await used()) - before;

const average = async (pattern) => {
  const keys = await client.keys(pattern);
  let sum = 0;
  for (const key of keys) sum += await client.memory('USAGE', key);
  return [keys.length, sum / keys.length];
};
const [sessions, session] = await average('*:session:*');
const [, index] = await average('*:sessions');
console.log(`
Redis ${/redis_version:(\S+)/.exec(await client.info('server'))[1]}, ${sessions} users with one session each

bytes                          per session
MEMORY USAGE, session record   ${session.toFixed(0).padStart(11)}
MEMORY USAGE, index entry      ${index.toFixed(0).padStart(11)}
both                           ${(session + index).toFixed(0).padStart(11)}
used_memory, all that grew     ${(total / sessions).toFixed(0).padStart(11)}`);
process.exit(0);
