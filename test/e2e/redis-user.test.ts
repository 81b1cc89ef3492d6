import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { Emulator } from '../../src/emulator/emulator';
import { RedisCluster } from '../support/redis-cluster';
import { type RedisServer, startRedis } from '../support/redis-server';
import { service } from '../support/service';
import { call, freshNumber, sendOtp, startInstance, textedCode, verifyOtp } from '../support/world';

const OPERATIONS = readFileSync(join(__dirname, '../../docs/operations.md'), 'utf8');
const OPERATOR = 'x'.repeat(32);

let upstream: Emulator;
beforeAll(async () => {
  upstream = await service().startEmulator();
});
afterAll(() => upstream.close());

/** Makes the user on a node. The function that it returns tells what the node has refused to the user since then. */
async function giveRights({ url }: RedisServer): Promise<() => Promise<unknown[]>> {
  const [, rules = ''] = /^\| a user \(RBAC\) \| `(.*)` \|$/m.exec(OPERATIONS) ?? [];
  const owner = new Redis(url);
  await owner.call('ACL', 'SETUSER', 'login', '>password', ...rules.split(' '));
  return async () => {
    const refused = await owner.call('ACL', 'LOG');
    owner.disconnect();
    return refused as unknown[];
  };
}

/** Makes every kind of call for which the service uses a script or command of its own. */
async function useEverything(redisUrl: string): Promise<void> {
  const instance = await startInstance({
    REDIS_URL: redisUrl,
    STARTMESSAGING_BASE_URL: upstream.url,
    ADMIN_TOKENS: `ops:${OPERATOR}`,
  });
  try {
    const phoneNumber = freshNumber();
    const sent = await sendOtp(instance.url, phoneNumber);
    const { status, body } = await verifyOtp(
      instance.url,
      sent.body.requestId,
      textedCode(upstream, phoneNumber),
    );
    expect(status).toBe(200);
    const refreshed = await call('POST', `${instance.url}/auth/refresh`, { refreshToken: body.refreshToken });
    expect(refreshed.status).toBe(200);
    const person = { authorization: `Bearer ${refreshed.body.accessToken}` };
    const operator = { authorization: `Bearer ${OPERATOR}` };
    for (const [method, path, headers, given, wanted] of [
      ['GET', `/auth/otp/${sent.body.requestId}`, {}, undefined, 200],
      ['GET', '/auth/me', person, undefined, 200],
      ['GET', '/auth/sessions', person, undefined, 200],
      ['DELETE', '/auth/sessions', person, undefined, 204],
      ['GET', '/admin/usage', operator, undefined, 200],
      ['GET', '/admin/abuse', operator, undefined, 200],
      ['POST', '/admin/numbers/block', operator, { phoneNumber }, 204],
      ['POST', '/admin/numbers/unblock', operator, { phoneNumber }, 204],
      ['POST', '/admin/numbers/unlock', operator, { phoneNumber }, 204],
    ] as const) {
      const answer = await call(method, `${instance.url}${path}`, given, headers);
      expect([path, answer.status]).toEqual([path, wanted]);
    }
  } finally {
    await instance.close();
  }
}

describe('the rights of a Redis user', () => {
  it('the Redis user of docs/operations.md can do what the service needs, and nothing else', async () => {
    const redis = await startRedis();
    try {
      const refused = await giveRights(redis);
      const url = redis.url.replace('://', '://login:password@');
      await useEverything(url);
      expect(await refused()).toEqual([]);

      const user = new Redis(url);
      await expect(user.set('elsewhere', '1')).rejects.toThrow('NOPERM');
      await expect(user.flushall()).rejects.toThrow('NOPERM');
      await expect(user.config('GET', 'maxmemory')).rejects.toThrow('NOPERM');
      user.disconnect();
    } finally {
      await redis.stop();
    }
  });

  it('the Redis user of docs/operations.md can do what the service needs in a cluster', async () => {
    const cluster = await RedisCluster.start();
    try {
      const refused = await Promise.all(cluster.nodes.map(giveRights));
      await useEverything(cluster.url.replace('://', '://login:password@'));
      for (const ofNode of refused) expect(await ofNode()).toEqual([]);
    } finally {
      await cluster.stop();
    }
  });
});
