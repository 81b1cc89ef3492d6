import { flushLedger } from '../support/admin';
import { KEYS } from '../support/keys';
import { commandsDuring } from '../support/redis-monitor';
import {
  call,
  freshNumber,
  login,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type Variables,
  type World,
} from '../support/world';

// Each world has a Redis of its own: what other tests ask a server would be counted too.
let world: World;

async function begin(variables: Variables): Promise<void> {
  world = await startWorld({ variables, ownRedis: true });
}
async function end(): Promise<void> {
  await world.close();
}

/** The commands that clients sent: on the path of the request, and for many requests at once, off their paths. */
async function commandsOf(step: () => Promise<unknown>): Promise<{ path: string[]; batches: string[] }> {
  const seen = await commandsDuring(world.redis.url, step);
  const named = (keep: (key: string | undefined) => boolean): string[] =>
    seen.filter(({ args: [, , key] }) => keep(key)).map(({ name }) => name);
  return {
    path: named((key) => key !== KEYS.ledger && key !== KEYS.audit),
    batches: named((key) => key === KEYS.ledger),
  };
}
const pathOf = async (step: () => Promise<unknown>): Promise<string[]> => (await commandsOf(step)).path;
const scripts = (count: number): string[] => Array<string>(count).fill('evalsha');

describe('one provider and no limit', () => {
  beforeAll(async () => {
    await begin({ STARTMESSAGING_CONTRACT: 'caller' });
    // The first call of a script costs one command more: the server does not know it yet.
    await login(world);
  });
  afterAll(end);

  it('a send is four commands to Redis', async () => {
    expect(await pathOf(() => sendOtp(world.url, freshNumber()))).toEqual(scripts(4));
  });

  it('a send that upstream refuses is four commands to Redis, the refund included', async () => {
    world.upstream.fault({
      on: 'send',
      times: 2,
      fault: { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' },
    });
    await sendOtp(world.url, freshNumber());
    expect(await pathOf(() => sendOtp(world.url, freshNumber()))).toEqual(scripts(4));
  });

  it('a verification is four commands to Redis, and a wrong code two', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    expect(await pathOf(() => verifyOtp(world.url, body.requestId, wrongCode(code)))).toEqual(scripts(2));
    expect(await pathOf(() => verifyOtp(world.url, body.requestId, code))).toEqual(scripts(4));
  });

  it('/auth/me is one command to Redis, and none for a token of another service', async () => {
    const { body } = await login(world);
    const me = (token: string) => () =>
      call('GET', `${world.url}/auth/me`, undefined, { authorization: `Bearer ${token}` });
    expect(await pathOf(me(body.accessToken as string))).toHaveLength(1);
    expect(await pathOf(me('eyJhbGciOiJFUzI1NiJ9.e30.AAAA'))).toHaveLength(0);
  });

  it('an invalid send is one command to Redis, which counts the address', async () => {
    expect(await pathOf(() => sendOtp(world.url, '+911234567890'))).toEqual(scripts(1));
  });

  it('the service writes the results of several SMS and codes to the ledger in one command', async () => {
    const logins = 20;
    const { batches } = await commandsOf(async () => {
      await Promise.all(Array.from({ length: logins }, () => login(world)));
      await flushLedger(world);
    });
    expect(batches.length).toBeGreaterThan(0);
    // Each login has two results: its SMS was sent, and its code came back.
    expect(batches.length).toBeLessThan(2 * logins);
  });
});

describe('a limit of the service', () => {
  beforeAll(() => begin({ LIMIT_GLOBAL: '1/3600' }));
  afterAll(end);

  it('a send that a limit refuses is four commands to Redis', async () => {
    await sendOtp(world.url, freshNumber());
    // The first refusal teaches the server its last script.
    await sendOtp(world.url, freshNumber());
    expect(await pathOf(() => sendOtp(world.url, freshNumber()))).toEqual(scripts(4));
  });
});

describe('two providers', () => {
  beforeAll(() =>
    begin({
      PROVIDERS: 'startmessaging,sendwithses',
      SENDWITHSES_TEMPLATE_KEY: 'tk',
      SENDWITHSES_SENT_IF: 'success=true',
      SENDWITHSES_VERIFIED_IF: 'data.verified=true',
    }),
  );
  afterAll(end);

  it('a send that is handed to another provider is five commands to Redis', async () => {
    const fault = { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' } as const;
    world.upstream.fault({ on: 'send', provider: 'startmessaging', times: 2, fault });
    await sendOtp(world.url, freshNumber());
    expect(await pathOf(() => sendOtp(world.url, freshNumber()))).toEqual(scripts(5));
    expect(world.upstream.messages.map(({ contract }) => contract)).toEqual(['sendwithses', 'sendwithses']);
  });
});
