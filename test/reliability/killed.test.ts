import { rmSync } from 'node:fs';
import {
  ADMIN_TOKENS,
  aMinuteLater,
  as,
  bill,
  forgetAbuseLevels,
  PATIENT,
  signingKeys,
  told,
  under,
  lasting,
} from '../support/crowd';
import { Build, type Run } from '../support/processes';
import { RedisProxy, type ScriptCall } from '../support/redis-proxy';
import {
  API_KEY,
  call,
  freshNumber,
  SECRET,
  sendOtp,
  startWorld,
  SUBJECT_SECRET,
  textedCode,
  until,
  verifyOtp,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

// A process is killed while a step of it is held: not the connection is cut, which it could mend, it is gone. Its caller
// asks another instance under the same Idempotency-Key.

/** The place of a key lasts for the deadline of upstream, and five seconds. */
const LONGEST_WAIT_SECONDS = Number(PATIENT.UPSTREAM_DEADLINE_MS) / 1_000 + 5;

/** `hold`: the step did not run; `late`: it ran, and its answer was under way; upstream: before or after its effect. */
type Moment = `${'hold' | 'late'} ${ScriptCall}` | `upstream ${'before' | 'after'}`;

const JWT_KEYS_DIR = signingKeys();
let build: Build;
beforeAll(() => {
  build = Build.make();
}, 180_000);
afterAll(async () => {
  await build.remove();
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

describe.each(['caller', 'provider'] as const)('under the %s contract', (contract) => {
  let world: World;
  const shared: Variables = {
    ADMIN_TOKENS,
    JWT_KEYS_DIR,
    STARTMESSAGING_CONTRACT: contract,
    ...PATIENT,
    // Two SMS to a number, whatever dies in between.
    LIMIT_PHONE: '2/3600',
    LIMIT_IP: '100000/60',
  };

  const messagesTo = (phoneNumber: string): number =>
    world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber).length;

  /** Asks as a client does that is told to wait: the place of the key has run out when it asks again. */
  async function insist(ask: () => Promise<Answer>): Promise<Answer> {
    const answer = await ask();
    if (answer.status !== 409) return answer;
    await aMinuteLater(world);
    return ask();
  }

  interface Victim {
    proxy: RedisProxy;
    service: Run;
    url: string;
  }
  async function victim(): Promise<Victim> {
    const proxy = await RedisProxy.before(world.redis);
    const served = await build.serve({
      NODE_ENV: 'test',
      HOST: '127.0.0.1',
      PORT: '0',
      SECRET,
      SUBJECT_SECRET,
      REDIS_URL: proxy.url,
      STARTMESSAGING_API_KEY: API_KEY,
      WALLET_ALERT_PAISE: '0',
      STARTMESSAGING_BASE_URL: world.upstream.url,
      ...shared,
    });
    return { proxy, ...served };
  }
  /** Each process dies once; the next one starts meanwhile. */
  let next: Promise<Victim>;

  /** Kills a process of its own at this moment of a request. */
  async function killAt(
    moment: Moment,
    on: 'send' | 'verify',
    phoneNumber: string,
    ask: (url: string) => Promise<Answer>,
  ): Promise<void> {
    const { proxy, service, url } = await next;
    next = victim();
    // Otherwise the first answer of admission may only say that judge.lua has to run before.
    await forgetAbuseLevels(world);
    const [how, step] = moment.split(' ') as ['hold' | 'late' | 'upstream', string];
    let reached: () => Promise<void>;
    if (how === 'upstream') {
      const before = world.upstream.calls.length;
      const fault = { kind: 'timeout', when: step as 'before' | 'after' } as const;
      world.upstream.fault({ on, phoneNumber, fault });
      reached = () => until(() => world.upstream.calls.length > before, 'the call at upstream');
    } else {
      const trap = proxy.trap(step as ScriptCall, how);
      reached = () => trap.caught();
    }
    const asked = ask(url).then(told, () => 'no answer');
    await reached();
    await service.kill();
    expect(await asked).toBe('no answer');
    await proxy.close();
  }

  const SENDS: [moment: Moment, soon: '200' | '409', sms: { caller: number; provider: number }][] = [
    ['hold create', '200', { caller: 1, provider: 1 }],
    ['late create', '409', { caller: 1, provider: 1 }],
    ['hold admission', '409', { caller: 1, provider: 1 }],
    // `caller` cannot ask what became of the first, and another try would be another SMS: its fate is told to be unknown.
    ['late admission', '409', { caller: 0, provider: 1 }],
    ['upstream before', '409', { caller: 0, provider: 1 }],
    ['upstream after', '409', { caller: 1, provider: 1 }],
    ['hold activate', '409', { caller: 1, provider: 1 }],
    ['late activate', '200', { caller: 1, provider: 1 }],
  ];
  // What is left of three attempts in the end: a step that ran took one, and so did the look that was repeated.
  const LOOKS: [
    moment: Moment,
    soon: '200' | '409',
    end: { caller: string; provider: string },
    left: number,
  ][] = [
    ['hold take-attempt', '200', { caller: '200', provider: '200' }, 2],
    ['late take-attempt', '409', { caller: '200', provider: '200' }, 1],
    ['upstream before', '409', { caller: 'none', provider: '200' }, 1],
    // Upstream has used its code up, and its answer was lost.
    ['upstream after', '409', { caller: 'none', provider: 'gone' }, 1],
    ['hold consume', '409', { caller: '200', provider: 'gone' }, 1],
    ['late consume', '200', { caller: '200', provider: '200' }, 2],
    ['hold open', '200', { caller: '200', provider: '200' }, 2],
    ['late open', '200', { caller: '200', provider: '200' }, 2],
  ];
  const looksHere = LOOKS.filter(([, , end]) => end[contract] !== 'none');

  beforeAll(async () => {
    world = await startWorld({ variables: shared });
    next = victim();
  });
  afterAll(async () => {
    const { proxy, service } = await next;
    await service.kill();
    await proxy.close();
    await world.close();
  });

  function expectWait({ headers }: Answer): void {
    const wait = Number(headers.get('retry-after'));
    expect(wait).toBeGreaterThanOrEqual(1);
    expect(wait).toBeLessThanOrEqual(LONGEST_WAIT_SECONDS);
  }

  it.each(SENDS)(
    'a send whose process was killed at "%s" succeeds by its retry',
    async (moment, soon, sms) => {
      const phoneNumber = freshNumber();
      const send = (url = world.url): Promise<Answer> => sendOtp(url, phoneNumber, under('k'));
      await killAt(moment, 'send', phoneNumber, send);
      const first = await send();
      expect(String(first.status)).toBe(soon);
      if (soon === '409') expectWait(first);

      const again = await insist(() => send());
      expect(again.status).toBe(200);
      expect(lasting(await send())).toEqual(lasting(again));
      expect(messagesTo(phoneNumber)).toBe(sms[contract]);
      const calls = world.upstream.calls
        .map(({ body }) => body as { phoneNumber?: string; idempotencyKey?: string })
        .filter((body) => body.phoneNumber === phoneNumber);
      // However often upstream was told of it: to upstream it is one send, and one code.
      expect(new Set(calls.map(({ idempotencyKey }) => idempotencyKey)).size).toBeLessThanOrEqual(1);
      // What died was counted, and counted once: no number gets more, or less, than its limit by it.
      const more: Answer[] = [];
      const askForMore = async (): Promise<unknown> => more.push(await sendOtp(world.url, phoneNumber));
      if (sms[contract] === 0) {
        expect(again.body.delivery).toBe('unknown');
        await askForMore();
      }
      const codes = world.upstream.messages.filter((message) => message.phoneNumber === phoneNumber);
      expect(new Set(codes.map(({ code }) => code)).size).toBe(1);
      const verified = await verifyOtp(world.url, again.body.requestId, codes[0]?.code);
      expect(verified.status).toBe(200);
      while (more.length < 3) await askForMore();
      expect(more.map(({ status }) => status)).toEqual([200, 429, 429]);
    },
  );

  it.each(looksHere)(
    'a verification whose process was killed at "%s" succeeds by its retry',
    async (moment, soon, end, left) => {
      const phoneNumber = freshNumber();
      const { requestId } = (await sendOtp(world.url, phoneNumber)).body as { requestId: string };
      const code = textedCode(world.upstream, phoneNumber);
      const verify = (url = world.url): Promise<Answer> => verifyOtp(url, requestId, code, under('v'));
      await killAt(moment, 'verify', phoneNumber, verify);
      const first = await verify();
      expect(String(first.status)).toBe(soon);
      if (soon === '409') expectWait(first);

      const again = await insist(() => verify());
      const status = await call('GET', `${world.url}/auth/otp/${requestId}`);
      expect(status.body.attemptsLeft).toBe(left);
      let session = again;
      if (end[contract] === 'gone') {
        expect([400, 410]).toContain(again.status);
        // The person asks for another code, and is in.
        const sent = await sendOtp(world.url, phoneNumber);
        session = await verifyOtp(world.url, sent.body.requestId, textedCode(world.upstream, phoneNumber));
      } else {
        const repeated = await verify();
        expect([repeated.status, repeated.body.refreshToken]).toEqual([200, again.body.refreshToken]);
      }
      expect(session.status).toBe(200);
      const listed = await call('GET', `${world.url}/auth/sessions`, undefined, as(session.body.accessToken));
      expect(listed.body.sessions).toHaveLength(1);
      // The code opens no other session.
      const other = await verifyOtp(world.url, requestId, code, under('w'));
      expect(other.status).toBe(410);
    },
  );

  it('a process that stands still until its key has expired sends no SMS beside the retry', async () => {
    const { proxy, service, url } = await next;
    next = victim();
    // Redis knows its scripts by now: else its step would be too late in any case.
    for (const at of [url, world.url]) await sendOtp(at, freshNumber(), under('k'));
    const phoneNumber = freshNumber();
    const trap = proxy.trap('create', 'late');
    const first = sendOtp(url, phoneNumber, under('k'));
    await trap.caught();
    service.signal('SIGSTOP');
    trap.letGo();
    const again = await insist(() => sendOtp(world.url, phoneNumber, under('k')));
    expect(again.status).toBe(200);
    // Nor is what the repeat sent given back when its own would fail.
    world.upstream.fault({ on: 'send', phoneNumber, fault: 'wallet-empty' });
    const { costPaise } = await bill(world);
    service.signal('SIGCONT');
    expect(['409 idempotency_in_progress', '503 store_unavailable']).toContain(told(await first));
    expect(messagesTo(phoneNumber)).toBe(1);
    expect((await bill(world)).costPaise).toBe(costPaise);
    expect(lasting(await sendOtp(world.url, phoneNumber, under('k')))).toEqual(lasting(again));
    await service.kill();
    await proxy.close();
  });

  it('upstream accepted no more SMS than were admitted and billed', async () => {
    const { sent } = await bill(world);
    expect(world.upstream.messages.length).toBeLessThanOrEqual(sent);
  });
});
