import { Redis } from 'ioredis';
import {
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type World,
} from '../support/world';

/** The first keys of what is written off every request's path, for many requests at once. */
const LEDGER = 'otp-login:{admission}:ledger';
const AUDIT = 'otp-login:{audit}:events';

let world: World;
let redis: Redis;
let batches: string[] = [];

beforeAll(async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller' } });
  redis = new Redis(world.redis.url);
  // The first call of a script costs one command more: the server does not know it yet.
  await login(world);
});
afterAll(async () => {
  redis.disconnect();
  await world.close();
});

/**
 * Commands that clients sent, by the server's own count. It counts those inside scripts too, under the names that our
 * scripts use; EVALSHA, HMGET outside of a script and DEL are told apart by MONITOR, which marks scripts' with `lua`.
 */
async function commandsOf(step: () => Promise<unknown>): Promise<string[]> {
  const connection = redis.duplicate();
  const monitor = await connection.monitor();
  const seen: string[] = [];
  monitor.on('monitor', (_time: string, [name = '', , , key = '']: string[], source: string) => {
    if (source !== 'lua' && key !== LEDGER && key !== AUDIT) seen.push(name.toLowerCase());
    if (source !== 'lua' && key === LEDGER) batches.push(name);
  });
  await step();
  await redis.ping();
  await new Promise((resolve) => setTimeout(resolve, 100));
  monitor.disconnect();
  connection.disconnect();
  return seen.filter((name) => !['ping', 'info', 'monitor'].includes(name));
}

it('a send is four commands', async () => {
  expect(await commandsOf(() => sendOtp(world.url, freshNumber()))).toEqual(Array(4).fill('evalsha'));
});

it('a send that a limit refuses is four', async () => {
  const limited = await startWorld({ variables: { LIMIT_GLOBAL: '1/60' } });
  const [kept, keptRedis] = [world, redis];
  try {
    await sendOtp(limited.url, freshNumber());
    [world, redis] = [limited, new Redis(limited.redis.url)];
    expect(await commandsOf(() => sendOtp(limited.url, freshNumber()))).toEqual([
      'evalsha',
      'evalsha',
      'evalsha',
      'del',
    ]);
  } finally {
    redis.disconnect();
    [world, redis] = [kept, keptRedis];
    await limited.close();
  }
});

it('a send that upstream refuses is four, the refund included', async () => {
  world.upstream.fault({
    on: 'send',
    times: 2,
    fault: { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' },
  });
  await sendOtp(world.url, freshNumber());
  expect(await commandsOf(() => sendOtp(world.url, freshNumber()))).toEqual(Array(4).fill('evalsha'));
});

it('a send that is handed to another provider is five', async () => {
  const both = await startWorld({
    variables: {
      PROVIDERS: 'startmessaging,sendwithses',
      SENDWITHSES_TEMPLATE_KEY: 'tk',
      SENDWITHSES_SENT_IF: 'success=true',
      SENDWITHSES_VERIFIED_IF: 'data.verified=true',
    },
  });
  const [kept, keptRedis] = [world, redis];
  try {
    const fault = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;
    both.upstream.fault({ on: 'send', provider: 'startmessaging', times: 2, fault });
    await sendOtp(both.url, freshNumber());
    [world, redis] = [both, new Redis(both.redis.url)];
    const commands = await commandsOf(() => sendOtp(both.url, freshNumber()));
    expect(commands).toEqual(Array(5).fill('evalsha'));
    expect(both.upstream.messages.map(({ contract }) => contract)).toEqual(['sendwithses', 'sendwithses']);
  } finally {
    redis.disconnect();
    [world, redis] = [kept, keptRedis];
    await both.close();
  }
});

it('a verification is four commands, and a wrong code two', async () => {
  const phoneNumber = freshNumber();
  const { body } = await sendOtp(world.url, phoneNumber);
  const code = textedCode(world.upstream, phoneNumber);
  expect(await commandsOf(() => verifyOtp(world.url, body.requestId, wrongCode(code)))).toEqual(
    Array(2).fill('evalsha'),
  );
  expect(await commandsOf(() => verifyOtp(world.url, body.requestId, code))).toEqual(
    Array(4).fill('evalsha'),
  );
});

it('/auth/me is one command, and none for a token that is not ours', async () => {
  const { body } = await login(world);
  const me = (token: string) => () =>
    call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${token}` });
  expect(await commandsOf(me(body.accessToken as string))).toHaveLength(1);
  expect(await commandsOf(me('eyJhbGciOiJFUzI1NiJ9.e30.AAAA'))).toHaveLength(0);
});

it('what does not hold is one command: the address is counted, nothing else', async () => {
  expect(await commandsOf(() => sendOtp(world.url, '+911234567890'))).toEqual(['evalsha']);
});

it('what became of SMS and codes is written for many at once, and no answer waits for it', async () => {
  batches = [];
  const logins = 20;
  await commandsOf(async () => {
    await Promise.all(Array.from({ length: logins }, () => login(world)));
    await until(() => batches.length > 0);
  });
  // Each would be two by itself: that its SMS was sent, and that its code came back.
  expect(batches.length).toBeLessThan(logins);
});
