import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { Webhook } from '../../src/alerts/webhook';
import type { Fault } from '../../src/emulator/fault';
import { Logger } from '../../src/logging/logger';
import {
  API_KEY,
  call,
  freshNumber,
  login,
  redisCommand,
  SECRET,
  sendOtp,
  startWorld,
  SUBJECT_SECRET,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Variables,
  type World,
} from '../support/world';

// Webhooks as a real receiver gets them, and the receiver of docs/alerts.md, taken from the page.

const KEYS = [randomBytes(32), randomBytes(24)];
const [SECRET_ONE = '', SECRET_TWO = ''] = KEYS.map((key) => `whsec_${key.toString('base64')}`);
const CANARY = 'a-token-of-the-receiver';
const ISSUER = 'https://login.example.com';

interface Received {
  at: number;
  url: string;
  headers: IncomingHttpHeaders;
  body: string;
}

/** Somebody's HTTP server, which answers as it is told, and 204 after that. */
class Receiver {
  readonly received: Received[] = [];
  readonly answers: ((response: ServerResponse) => void)[] = [];
  private constructor(private readonly server: Server) {}

  static async start(): Promise<Receiver> {
    const receiver: Receiver = new Receiver(
      createServer((request, response) => {
        const chunks: Buffer[] = [];
        request.on('error', () => undefined);
        request.on('data', (chunk: Buffer) => chunks.push(chunk));
        request.on('end', () => {
          const body = Buffer.concat(chunks).toString();
          receiver.received.push({ at: Date.now(), url: request.url ?? '', headers: request.headers, body });
          const answer = receiver.answers.shift() ?? status(204);
          answer(response);
        });
      }),
    );
    receiver.server.listen(0, '127.0.0.1');
    await once(receiver.server, 'listening');
    return receiver;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/hooks?token=${CANARY}`;
  }

  get events(): { type: string; timestamp: string; data: Record<string, unknown> }[] {
    return this.received.map(({ body }) => JSON.parse(body) as (typeof this.events)[number]);
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}

const status =
  (code: number, headers: Record<string, string> = {}) =>
  (response: ServerResponse): void => {
    response.writeHead(code, headers).end();
  };
const reset = (response: ServerResponse): void => {
  response.socket?.resetAndDestroy();
};
const silence = (): void => undefined;
/** A 200 whose body has no end. */
const endless = (response: ServerResponse): void => {
  response.writeHead(200);
  const timer = setInterval(() => response.write('x'.repeat(1_000)), 10);
  response.on('close', () => {
    clearInterval(timer);
  });
};

let world: World;
let receiver: Receiver;
beforeEach(async () => {
  receiver = await Receiver.start();
});
afterEach(async () => {
  await world.close();
  await receiver.close();
});

async function begin(variables: Variables = {}, count = 1): Promise<void> {
  const settings = {
    ISSUER,
    STARTMESSAGING_CONTRACT: 'caller',
    ALERT_WEBHOOK_URL: receiver.url,
    ALERT_WEBHOOK_SECRET: SECRET_ONE,
    ...variables,
  };
  world = await startWorld({ variables: settings, count });
}

/** Raises this alert here, so many times. */
function raise(instance = 0, times = 1): void {
  const logger = world.instances[instance]!.app.get(Logger);
  for (let i = 0; i < times; i++) logger.alert('token_reused', 'A refresh token was used again');
}
const arrived = (count: number): Promise<void> => until(() => receiver.received.length >= count, 20_000);
/** As if ten minutes had passed. */
const later = (type: string): Promise<unknown> =>
  redisCommand(world, 'DEL', `otp-login:{alerts}:${type}:sent`);
const count = async (outcome: string, instance = 0): Promise<number> => {
  const { body } = await call('GET', `${world.instances[instance]!.url}/metrics`);
  const line = new RegExp(`^otp_login_alert_webhooks_total\\{outcome="${outcome}"\\} (\\d+)$`, 'm');
  return Number(line.exec(body as string)?.[1] ?? 0);
};

function expectSigned({ headers, body }: Received, ...keys: Buffer[]): void {
  const { 'webhook-id': id, 'webhook-timestamp': time } = headers;
  expect(Math.abs(Number(time) - Date.now() / 1_000)).toBeLessThan(60);
  const signatures = keys.map(
    (key) =>
      `v1,${createHmac('sha256', key)
        .update(`${String(id)}.${String(time)}.${body}`)
        .digest('base64')}`,
  );
  expect(headers['webhook-signature']).toBe(signatures.join(' '));
}

describe('what happens', () => {
  const failing = (fault: Fault) => async (): Promise<void> => {
    world.upstream.fault({ on: 'send', times: 0, fault });
    await sendOtp(world.url, freshNumber());
  };
  const TROUBLE: [string, string, Variables, () => Promise<void>][] = [
    [
      'alert.wallet',
      'wallet_exhausted',
      {},
      failing({ kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' }),
    ],
    [
      'alert.credentials',
      'upstream_credentials',
      {},
      failing({ kind: 'error', status: 401, code: 'UNAUTHORIZED' }),
    ],
    [
      'alert.contract',
      'contract_mismatch',
      { STARTMESSAGING_CONTRACT: 'provider' },
      failing({ kind: 'error', status: 404, code: 'NOT_FOUND' }),
    ],
    [
      'alert.budget',
      'budget_exhausted',
      { BUDGET_PAISE_PER_DAY: '25', BUDGET_RESERVE_PERCENT: '0' },
      async () => {
        for (let i = 0; i < 2; i++) await sendOtp(world.url, freshNumber());
      },
    ],
    [
      'alert.guard',
      'guard_wrong_codes',
      {},
      async () => {
        const guess = async (): Promise<void> => {
          const number = freshNumber();
          const { body } = await sendOtp(world.url, number);
          await verifyOtp(world.url, body.requestId, wrongCode(textedCode(world.upstream, number)));
        };
        for (let i = 0; i < 11; i++) await Promise.all(Array.from({ length: 10 }, guess));
        // Judged by a send, every five seconds.
        await until(async () => {
          await sendOtp(world.url, freshNumber());
          return receiver.received.length > 0;
        }, 20_000);
      },
    ],
    [
      'alert.provider',
      'provider_down',
      { STARTMESSAGING_CONTRACT: 'caller' },
      async () => {
        world.upstream.fault({
          on: 'send',
          times: 0,
          fault: { kind: 'error', status: 500, code: 'INTERNAL_ERROR' },
        });
        for (let i = 0; i < 20; i++) await sendOtp(world.url, freshNumber());
      },
    ],
    [
      'alert.reuse',
      'token_reused',
      {},
      async () => {
        const { body } = await login(world);
        let token = body.refreshToken as string;
        for (let i = 0; i < 2; i++)
          token = (await call('POST', `${world.url}/auth/refresh`, { refreshToken: token })).body
            .refreshToken as string;
        await call('POST', `${world.url}/auth/refresh`, { refreshToken: body.refreshToken });
      },
    ],
  ];

  it.each(TROUBLE)('is told as %s by a signed webhook: %s', async (type, alert, variables, happen) => {
    await begin(variables);
    const from = Date.now();
    await happen();
    await arrived(1);
    const [first] = receiver.received as [Received];
    expect(first.headers).toMatchObject({
      'content-type': 'application/json',
      'webhook-id': expect.stringMatching(/^msg_[0-9a-f-]{36}$/) as string,
    });
    expectSigned(first, KEYS[0]!);
    expect(receiver.events[0]).toEqual({
      type,
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string,
      // Nothing else: a webhook leaves the house.
      data: {
        alert,
        message: expect.any(String) as string,
        issuer: ISSUER,
        more: expect.any(Number) as number,
      },
    });
    expect(Date.parse(receiver.events[0]!.timestamp)).toBeGreaterThanOrEqual(from);
    // It stands in the log, too, and nothing secret with it, there or here.
    const log = world.instances[0]!.logs.join('');
    expect(log).toContain(`"alert":"${alert}"`);
    for (const secret of [CANARY, SECRET_ONE, KEYS[0]!.toString('hex')]) expect(log).not.toContain(secret);
    const sent = JSON.stringify(receiver.received.map(({ headers, body }) => [headers, body]));
    for (const secret of [SECRET_ONE, API_KEY, SECRET, SUBJECT_SECRET]) expect(sent).not.toContain(secret);
    expect(sent).not.toMatch(/\+91|[6-9]\d{9}/);
  });

  it('is told to nobody where nobody is named', async () => {
    await begin({ ALERT_WEBHOOK_URL: undefined });
    raise();
    await sleep(500);
    expect(receiver.received).toEqual([]);
    expect(await redisCommand(world, 'KEYS', 'otp-login:{alerts}*')).toEqual([]);
  });

  it('is told at every LOG_LEVEL', async () => {
    await begin({ LOG_LEVEL: 'silent' });
    raise();
    await arrived(1);
  });

  it('is signed by each secret of the list, so that the receiver changes over in its own time', async () => {
    await begin({ ALERT_WEBHOOK_SECRET: `${SECRET_ONE},${SECRET_TWO}` });
    raise();
    await arrived(1);
    expectSigned(receiver.received[0]!, ...KEYS);
  });
});

describe('a webhook that did not arrive', () => {
  it('is sent again under its id, signed anew, until it is answered by a 2xx', async () => {
    await begin();
    // A redirect is followed nowhere.
    const elsewhere = receiver.url.replace('hooks', 'elsewhere');
    receiver.answers.push(status(500), reset, status(307, { location: elsewhere }));
    jest.replaceProperty(world.instances[0]!.app.get(Webhook), 'pauses', {
      initialDelay: 400,
      exponent: 2,
      maxDelay: 1_500,
    });
    raise();
    await arrived(4);
    await sleep(500);
    const { received } = receiver;
    expect(received).toHaveLength(4);
    expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
    expect(new Set(received.map(({ body }) => body)).size).toBe(1);
    for (const each of received) {
      expectSigned(each, KEYS[0]!);
      expect(each.url).toBe(`/hooks?token=${CANARY}`);
      // When it was sent, not when it was first tried.
      expect(each.at / 1_000 - Number(each.headers['webhook-timestamp'])).toBeLessThan(2);
    }
    expect([await count('delivered'), await count('failed')]).toEqual([1, 0]);
    expect(world.instances[0]!.logs.join('')).not.toContain(CANARY);
  });

  it('because nobody answered within five seconds is sent again, and other alerts do not wait for it', async () => {
    await begin();
    receiver.answers.push(silence);
    raise();
    await arrived(1);
    world.instances[0]!.app.get(Logger).alert('wallet_exhausted', 'No money');
    await arrived(2);
    expect(receiver.events.map(({ type }) => type)).toEqual(['alert.reuse', 'alert.wallet']);
    await arrived(3);
    const [first, , again] = receiver.received as [Received, Received, Received];
    expect(again.headers['webhook-id']).toBe(first.headers['webhook-id']);
    expect(again.at - first.at).toBeGreaterThanOrEqual(4_900);
  });

  it('is known to have arrived by its status, whatever comes after that', async () => {
    await begin();
    receiver.answers.push(endless);
    raise();
    await until(async () => (await count('delivered')) === 1);
    await sleep(300);
    expect(receiver.received).toHaveLength(1);
  });

  it('after six tries is given up, and the next alert speaks for it', async () => {
    await begin();
    receiver.answers.push(...Array.from({ length: 6 }, () => status(503)));
    jest.replaceProperty(world.instances[0]!.app.get(Webhook), 'pauses', {
      initialDelay: 5,
      exponent: 1,
      maxDelay: 5,
    });
    raise(0, 3);
    await until(() => world.instances[0]!.logs.join('').includes('"undelivered":"token_reused"'));
    expect(receiver.received).toHaveLength(6);
    await until(async () => (await redisCommand(world, 'EXISTS', 'otp-login:{alerts}:reuse:sent')) === 0);
    raise();
    await arrived(7);
    expect(receiver.events[6]!.data.more).toBe(3);
    expect([await count('delivered'), await count('failed')]).toEqual([1, 1]);
  });

  it('before its process ended is left to the others', async () => {
    await begin({}, 2);
    receiver.answers.push(status(500));
    raise(0, 2);
    await arrived(1);
    await world.instances[0]!.close();
    raise(1);
    await arrived(2);
    expect(receiver.events[1]!.data.more).toBe(2);
  });

  it('is no alert of its own, and no request is slower or worse for it', async () => {
    await begin();
    receiver.answers.push(...Array.from({ length: 3 }, () => status(500)));
    raise();
    await arrived(1);
    expect((await login(world)).status).toBe(200);
    const alerts = world.instances[0]!.logs.filter((line) => line.includes('"alert":'));
    expect(alerts).toHaveLength(1);
  });
});

describe('one webhook speaks for all', () => {
  it('of a thousand alerts on two replicas one is sent, and the next says how many there were', async () => {
    await begin({}, 2);
    for (let i = 0; i < 10; i++) {
      raise(0, 50);
      raise(1, 50);
      await sleep(50);
    }
    await until(async () => {
      const held = await Promise.all([count('held_back', 0), count('held_back', 1)]);
      const { more } = receiver.events[0]?.data ?? {};
      return held[0] + held[1] + Number(more) + 1 === 1_000;
    });
    expect(receiver.received).toHaveLength(1);
    const { more } = receiver.events[0]!.data as { more: number };
    await later('reuse');
    raise(1);
    await arrived(2);
    expect(receiver.events[1]!.data.more).toBe(1_000 - 1 - more);
    expect(receiver.received[1]!.headers['webhook-id']).not.toBe(receiver.received[0]!.headers['webhook-id']);
  });

  it('of its type, for ten minutes', async () => {
    await begin();
    raise();
    world.instances[0]!.app.get(Logger).alert('wallet_exhausted', 'No money');
    await arrived(2);
    expect(receiver.events.map(({ type }) => type).sort()).toEqual(['alert.reuse', 'alert.wallet']);
    raise();
    await until(async () => (await count('held_back')) === 1);
    const keys = (await redisCommand(world, 'KEYS', 'otp-login:{alerts}:*')) as string[];
    expect(keys).toHaveLength(3);
    for (const key of keys) expect(await redisCommand(world, 'PTTL', key)).toBeGreaterThan(0);
    const ttl = (await redisCommand(world, 'PTTL', 'otp-login:{alerts}:reuse:sent')) as number;
    expect(ttl).toBeGreaterThan(540_000);
    expect(ttl).toBeLessThanOrEqual(600_000);
  });

  it('of its replica, while Redis is away', async () => {
    await begin({}, 2);
    await world.redis.kill();
    for (let i = 0; i < 3; i++) {
      raise(0, 10);
      raise(1, 10);
      await sleep(1_200);
    }
    expect(receiver.received).toHaveLength(2);
    await world.redis.restart();
  });
});

describe('the receiver of docs/alerts.md', () => {
  let folder: string;
  let child: ChildProcessByStdio<null, Readable, Readable>;
  let url: string;
  let printed: string;
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'otp-login-receiver-'));
    const page = readFileSync(join(__dirname, '../../docs/alerts.md'), 'utf8');
    const [, text = ''] = /<!-- file: receiver\.mjs -->\n+```js\n(.*?)\n```/s.exec(page) ?? [];
    writeFileSync(join(folder, 'receiver.mjs'), text);
    child = spawn(process.execPath, ['receiver.mjs'], {
      cwd: folder,
      env: { PATH: process.env.PATH ?? '', PORT: '0', ALERT_WEBHOOK_SECRET: SECRET_ONE },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    printed = '';
    child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    await until(() => printed.includes('listens on '));
    url = `http://127.0.0.1:${/listens on (\d+)/.exec(printed)?.[1]}`;
  });
  afterEach(() => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });

  const NOW = (): number => Math.floor(Date.now() / 1_000);
  const sign = (id: string, time: unknown, body: string, key = KEYS[0]!): string =>
    `v1,${createHmac('sha256', key)
      .update(`${id}.${String(time)}.${body}`)
      .digest('base64')}`;
  const BODY = '{"type":"alert.wallet","data":{"more":0}}';
  const post = (id: string, time: unknown, signature: string, body = BODY): Promise<Answer> =>
    call('POST', url, body, {
      'webhook-id': id,
      'webhook-timestamp': String(time),
      'webhook-signature': signature,
    });
  const told = (): string[] => printed.trim().split('\n').slice(1);

  it('takes what the service sends', async () => {
    await begin({ ALERT_WEBHOOK_URL: `${url}/hooks`, ALERT_WEBHOOK_SECRET: `${SECRET_TWO},${SECRET_ONE}` });
    raise();
    await until(async () => (await count('delivered')) === 1);
    await until(() => told().length === 1);
    expect(JSON.parse(told()[0]!)).toMatchObject({ type: 'alert.reuse', data: { alert: 'token_reused' } });
  });

  it('takes the same webhook twice, and tells of it once', async () => {
    await begin();
    for (const id of ['msg_1', 'msg_1', 'msg_2']) {
      const time = NOW();
      expect((await post(id, time, sign(id, time, BODY))).status).toBe(204);
    }
    await until(() => told().length === 2);
  });

  it.each<[string, () => Promise<Answer>]>([
    ['another body', () => post('msg_1', NOW(), sign('msg_1', NOW(), BODY), BODY.replace('0', '1'))],
    ['another id', () => post('msg_2', NOW(), sign('msg_1', NOW(), BODY))],
    ['another time', () => post('msg_1', NOW() - 1, sign('msg_1', NOW(), BODY))],
    ['a stranger’s key', () => post('msg_1', NOW(), sign('msg_1', NOW(), BODY, KEYS[1]))],
    ['no signature', () => post('msg_1', NOW(), '')],
    ['half a signature', () => post('msg_1', NOW(), sign('msg_1', NOW(), BODY).slice(0, 20))],
    ['a longer signature', () => post('msg_1', NOW(), `${sign('msg_1', NOW(), BODY)}A`)],
    ['another version', () => post('msg_1', NOW(), sign('msg_1', NOW(), BODY).replace('v1', 'v0'))],
    ['a time long past', () => post('msg_1', NOW() - 310, sign('msg_1', NOW() - 310, BODY))],
    ['a time to come', () => post('msg_1', NOW() + 310, sign('msg_1', NOW() + 310, BODY))],
    ['no time', () => post('msg_1', 'NaN', sign('msg_1', 'NaN', BODY))],
  ])('refuses %s', async (_, send) => {
    await begin();
    expect((await send()).status).toBe(401);
    expect(told()).toEqual([]);
    // Good in all but that.
    const time = NOW();
    expect((await post('msg_9', time, sign('msg_9', time, BODY))).status).toBe(204);
  });

  it('refuses what has no end', async () => {
    await begin();
    expect((await post('msg_1', NOW(), 'v1,x', 'x'.repeat(70_000))).status).toBe(413);
  });
});
