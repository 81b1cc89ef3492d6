import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type * as webhook from '../../src/alerts/webhook';
import type { Fault } from '../../src/emulator/fault';
import type { Alert } from '../../src/alerts/alert-types';
import { abuseLevelKey, alertKey, KEYS } from '../support/keys';
import { metricOf } from '../support/metrics';
import type { RedisServer } from '../support/redis-server';
import { serviceModule } from '../support/service';
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

const BEGAN = Date.now();
const SIGNING = [randomBytes(32), randomBytes(24)];
const [SECRET_ONE = '', SECRET_TWO = ''] = SIGNING.map((key) => `whsec_${key.toString('base64')}`);
const CANARY = 'a-token-of-the-receiver';
const ISSUER = 'https://login.example.com';

interface Received {
  at: number;
  url: string;
  headers: IncomingHttpHeaders;
  body: string;
}

/** The HTTP server of an operator. It answers as the test says, and 204 after that. */
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

let world: World | undefined;
let receiver: Receiver;
beforeEach(async () => {
  receiver = await Receiver.start();
});
afterEach(async () => {
  await world?.close();
  world = undefined;
  await receiver.close();
});

const settings = (variables: Variables): Variables => ({
  ISSUER,
  STARTMESSAGING_CONTRACT: 'caller',
  ALERT_WEBHOOK_URL: receiver.url,
  ALERT_WEBHOOK_SECRET: SECRET_ONE,
  ...variables,
});
/** Until the end of the test. */
async function begin(variables: Variables = {}, count = 1): Promise<World> {
  world = await startWorld({ variables: settings(variables), count });
  return world;
}

/** Raises this alert at one instance, so many times. */
function raise(of: World, instance = 0, times = 1, alert: Alert = 'token_reused'): void {
  const { Alerts } = serviceModule<typeof import('../../src/alerts/alerts')>('alerts/alerts');
  const its = of.instances[instance]!.app.get(Alerts);
  for (let i = 0; i < times; i++) its.raise(alert, 'As in this test');
}
const webhookOf = (of: World, instance = 0): webhook.Webhook =>
  of.instances[instance]!.app.get(serviceModule<typeof webhook>('alerts/webhook').Webhook);
const pauseBetweenTries = (of: World, ms: number): void => {
  jest.replaceProperty(webhookOf(of), 'pauses', { initialDelay: ms, exponent: 1, maxDelay: ms });
};
const arrived = (count: number): Promise<void> =>
  until(() => receiver.received.length >= count, `webhook ${count}`);
const count = (of: World, outcome: string, instance = 0): Promise<number> =>
  metricOf(of.instances[instance]!.url, `otp_login_alert_webhooks_total{outcome="${outcome}"}`);
const delivered = (of: World): Promise<void> =>
  until(async () => (await count(of, 'delivered')) === 1, 'a webhook that is delivered');
async function heldBack(of: World): Promise<number> {
  const counts = await Promise.all(of.instances.map((_, i) => count(of, 'held_back', i)));
  return counts.reduce((sum, each) => sum + each, 0);
}

function expectSigned({ at, headers, body }: Received, ...keys: Buffer[]): void {
  const { 'webhook-id': id, 'webhook-timestamp': time } = headers;
  expect(Number(time)).toBeGreaterThanOrEqual(Math.floor(BEGAN / 1_000));
  expect(Number(time)).toBeLessThanOrEqual(at / 1_000);
  const signatures = keys.map((key) => sign(String(id), time, body, key));
  expect(headers['webhook-signature']).toBe(signatures.join(' '));
}
const sign = (id: string, time: unknown, body: string, key: Buffer = SIGNING[0]!): string =>
  `v1,${createHmac('sha256', key)
    .update(`${id}.${String(time)}.${body}`)
    .digest('base64')}`;

describe('an alert', () => {
  const failing =
    (fault: Fault) =>
    async ({ url, upstream }: World): Promise<void> => {
      upstream.fault({ on: 'send', times: 0, fault });
      await sendOtp(url, freshNumber());
    };
  const TROUBLE: [string, string, Variables, (world: World) => Promise<void>][] = [
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
      async ({ url }) => {
        for (let i = 0; i < 2; i++) await sendOtp(url, freshNumber());
      },
    ],
    [
      'alert.abuse',
      'abuse_wrong_codes',
      {},
      async (its) => {
        const guess = async (): Promise<void> => {
          const number = freshNumber();
          const { body } = await sendOtp(its.url, number);
          await verifyOtp(its.url, body.requestId, wrongCode(textedCode(its.upstream, number)));
        };
        // Fifty numbers must have seen a wrong code.
        for (let i = 0; i < 6; i++) await Promise.all(Array.from({ length: 10 }, guess));
        await until(async () => {
          // As if the five seconds were over in which the abuse control judges once.
          await redisCommand(its, 'SET', abuseLevelKey('service'), '0 0 0 0 none', 'PX', '600000');
          await sendOtp(its.url, freshNumber());
          return receiver.received.length > 0;
        }, 'the judgement of the abuse control');
      },
    ],
    [
      'alert.provider',
      'provider_down',
      {},
      async ({ url, upstream }) => {
        const fault = { kind: 'error', status: 500, code: 'INTERNAL_ERROR' } as const;
        upstream.fault({ on: 'send', times: 0, fault });
        for (let i = 0; i < 20; i++) await sendOtp(url, freshNumber());
      },
    ],
    [
      'alert.reuse',
      'token_reused',
      {},
      async (its) => {
        const { body } = await login(its);
        const refresh = async (refreshToken: unknown): Promise<unknown> =>
          (await call('POST', `${its.url}/auth/refresh`, { refreshToken })).body.refreshToken;
        await refresh(await refresh(body.refreshToken));
        await refresh(body.refreshToken);
      },
    ],
  ];

  it.each(TROUBLE)(
    'the service posts a signed webhook %s when it raises the alert %s',
    async (type, alert, variables, happen) => {
      const its = await begin(variables);
      await happen(its);
      await arrived(1);
      const [first] = receiver.received as [Received];
      expect(first.headers).toMatchObject({
        'content-type': 'application/json',
        'webhook-id': expect.stringMatching(/^msg_[0-9a-f-]{36}$/) as string,
      });
      expectSigned(first, SIGNING[0]!);
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
      expect(Date.parse(receiver.events[0]!.timestamp)).toBeGreaterThanOrEqual(BEGAN);
      // It stands in the log, too. Neither has a secret in it.
      const log = its.instances[0]!.logs.join('');
      expect(log).toContain(`"alert":"${alert}"`);
      for (const secret of [CANARY, SECRET_ONE, SIGNING[0]!.toString('hex')])
        expect(log).not.toContain(secret);
      const sent = JSON.stringify(receiver.received.map(({ headers, body }) => [headers, body]));
      for (const secret of [SECRET_ONE, API_KEY, SECRET, SUBJECT_SECRET]) expect(sent).not.toContain(secret);
      expect(sent).not.toMatch(/\+91|[6-9]\d{9}/);
    },
  );

  it('the service posts no webhook without ALERT_WEBHOOK_URL', async () => {
    const its = await begin({ ALERT_WEBHOOK_URL: undefined });
    raise(its);
    // At its end an instance sends what still waits.
    await its.instances[0]!.close();
    expect(receiver.received).toEqual([]);
    expect(await redisCommand(its, 'KEYS', `${KEYS.alerts}*`)).toEqual([]);
  });

  it('the service posts webhooks at LOG_LEVEL=silent, too', async () => {
    raise(await begin({ LOG_LEVEL: 'silent' }));
    await arrived(1);
  });

  it('the service signs a webhook with each secret of ALERT_WEBHOOK_SECRET, so that a receiver can change its key', async () => {
    raise(await begin({ ALERT_WEBHOOK_SECRET: `${SECRET_ONE},${SECRET_TWO}` }));
    await arrived(1);
    expectSigned(receiver.received[0]!, ...SIGNING);
  });
});

describe('a webhook that does not arrive', () => {
  it('the service sends a failed webhook again under its id, signed anew, until a 2xx answers it', async () => {
    const its = await begin();
    pauseBetweenTries(its, 5);
    const second = (): number => Math.floor(Date.now() / 1_000);
    /** A 500, but only in the next second, so that a new signature differs from the old one. */
    const lateError = (response: ServerResponse): void => {
      const asked = second();
      void until(() => second() > asked).then(() => {
        status(500)(response);
      });
    };
    // A redirect is not followed.
    const elsewhere = receiver.url.replace('hooks', 'elsewhere');
    receiver.answers.push(lateError, reset, status(307, { location: elsewhere }));
    raise(its);
    await delivered(its);
    expect(await count(its, 'failed')).toBe(0);
    await its.instances[0]!.close();
    const { received } = receiver;
    expect(received).toHaveLength(4);
    expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
    expect(new Set(received.map(({ body }) => body)).size).toBe(1);
    for (const each of received) {
      expectSigned(each, SIGNING[0]!);
      expect(each.url).toBe(`/hooks?token=${CANARY}`);
    }
    const times = received.map(({ headers }) => Number(headers['webhook-timestamp']));
    expect(times[1]).toBeGreaterThan(times[0]!);
    expect(its.instances[0]!.logs.join('')).not.toContain(CANARY);
  });

  it('the service sends a webhook again when its receiver does not answer in time', async () => {
    const its = await begin();
    expect(webhookOf(its).deadlineMs).toBe(5_000);
    jest.replaceProperty(webhookOf(its), 'deadlineMs', 200);
    pauseBetweenTries(its, 5);
    receiver.answers.push(silence);
    raise(its);
    await arrived(2);
    const [first, again] = receiver.received.map(({ headers }) => headers['webhook-id']);
    expect(again).toBe(first);
  });

  it('an alert does not wait for the webhook of another type', async () => {
    const its = await begin();
    jest.replaceProperty(webhookOf(its), 'deadlineMs', 600_000);
    receiver.answers.push(silence);
    raise(its);
    await arrived(1);
    raise(its, 0, 1, 'wallet_exhausted');
    await arrived(2);
    expect(receiver.events.map(({ type }) => type)).toEqual(['alert.reuse', 'alert.wallet']);
  });

  it('the service takes a webhook for delivered by its status, and does not wait for the end of the body', async () => {
    const its = await begin();
    receiver.answers.push(endless);
    raise(its);
    await delivered(its);
    await its.instances[0]!.close();
    expect(receiver.received).toHaveLength(1);
  });

  it('the service gives a webhook up after six tries, and the next alert counts the lost ones', async () => {
    const its = await begin();
    receiver.answers.push(...Array.from({ length: 6 }, () => status(503)));
    pauseBetweenTries(its, 5);
    raise(its, 0, 3);
    await until(
      () => its.instances[0]!.logs.join('').includes('"undelivered":"token_reused"'),
      'the log line about the lost webhook',
    );
    expect(receiver.received).toHaveLength(6);
    const sent = alertKey('reuse', 'sent');
    await until(async () => (await redisCommand(its, 'EXISTS', sent)) === 0, 'the release of the alert');
    raise(its);
    await arrived(7);
    expect(receiver.events[6]!.data.more).toBe(3);
    await delivered(its);
    expect(await count(its, 'failed')).toBe(1);
  });

  it('an instance that ends leaves its undelivered webhook to the others', async () => {
    const its = await begin({}, 2);
    pauseBetweenTries(its, 600_000);
    receiver.answers.push(status(500));
    raise(its, 0, 2);
    await arrived(1);
    await its.instances[0]!.close();
    raise(its, 1);
    await arrived(2);
    expect(receiver.events[1]!.data.more).toBe(2);
  });

  it('a failed webhook raises no alert, and requests are answered as before', async () => {
    const its = await begin();
    receiver.answers.push(...Array.from({ length: 3 }, () => status(500)));
    pauseBetweenTries(its, 5);
    raise(its);
    expect((await login(its)).status).toBe(200);
    await delivered(its);
    expect((await login(its)).status).toBe(200);
    const alerts = its.instances[0]!.logs.filter((line) => line.includes('"alert":'));
    expect(alerts).toHaveLength(1);
  });
});

describe('one webhook for many alerts', () => {
  it('two instances send one webhook for a thousand alerts, and the next one says how many they were', async () => {
    const its = await begin({}, 2);
    for (let raised = 250; raised <= 1_000; raised += 250) {
      raise(its, 0, 125);
      raise(its, 1, 125);
      await until(async () => {
        const { more } = receiver.events[0]?.data ?? {};
        return (await heldBack(its)) + Number(more) + 1 === raised;
      }, `${raised} alerts that are sent or held back`);
    }
    expect(receiver.received).toHaveLength(1);
    const { more } = receiver.events[0]!.data as { more: number };
    // As if ten minutes had passed.
    await redisCommand(its, 'DEL', alertKey('reuse', 'sent'));
    raise(its, 1);
    await arrived(2);
    expect(receiver.events[1]!.data.more).toBe(1_000 - 1 - more);
    expect(receiver.received[1]!.headers['webhook-id']).not.toBe(receiver.received[0]!.headers['webhook-id']);
  });

  it('an alert holds back alerts of its type for ten minutes, and no others', async () => {
    const its = await begin();
    const before = Date.now();
    raise(its);
    raise(its, 0, 1, 'wallet_exhausted');
    await arrived(2);
    expect(receiver.events.map(({ type }) => type).sort()).toEqual(['alert.reuse', 'alert.wallet']);
    raise(its);
    await until(async () => (await heldBack(its)) === 1, 'an alert that is held back');
    const keys = (await redisCommand(its, 'KEYS', `${KEYS.alerts}*`)) as string[];
    expect(keys).toHaveLength(3);
    for (const key of keys) expect(await redisCommand(its, 'PTTL', key)).toBeGreaterThan(0);
    const ttl = (await redisCommand(its, 'PTTL', alertKey('reuse', 'sent'))) as number;
    expect(ttl).toBeGreaterThanOrEqual(600_000 - (Date.now() - before) - 1);
    expect(ttl).toBeLessThanOrEqual(600_000);
  });

  it('each instance sends one webhook while Redis is away', async () => {
    const its: World<RedisServer> = await startWorld({ ownRedis: true, variables: settings({}), count: 2 });
    world = its;
    await its.redis.kill();
    for (const instance of [0, 1]) raise(its, instance, 10);
    await arrived(2);
    expect(receiver.events.map(({ data }) => data.more)).toEqual([9, 9]);
    for (const instance of [0, 1]) raise(its, instance, 10);
    await until(async () => (await heldBack(its)) === 20, 'alerts that are held back');
    expect(receiver.received).toHaveLength(2);
    await its.redis.restart();
  });
});

describe('the receiver of docs/alerts.md', () => {
  let folder: string;
  let child: ChildProcessByStdio<null, Readable, Readable>;
  let url: string;
  let printed = '';
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'otp-login-receiver-'));
    const page = readFileSync(join(__dirname, '../../docs/alerts.md'), 'utf8');
    const [, text = ''] = /<!-- file: receiver\.mjs -->\n+```js\n(.*?)\n```/s.exec(page) ?? [];
    writeFileSync(join(folder, 'receiver.mjs'), text);
    child = spawn(process.execPath, ['receiver.mjs'], {
      cwd: folder,
      env: { PATH: process.env.PATH ?? '', PORT: '0', ALERT_WEBHOOK_SECRET: SECRET_ONE },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    await until(() => printed.includes('listens on '), 'the port of the receiver');
    url = `http://127.0.0.1:${/listens on (\d+)/.exec(printed)?.[1]}`;
  });
  afterAll(() => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });

  const now = (): number => Math.floor(Date.now() / 1_000);
  const bodyOf = (test: string): string => JSON.stringify({ type: 'alert.wallet', data: { more: 0, test } });
  const post = (id: string, time: unknown, signature: string, body: string): Promise<Answer> =>
    call('POST', url, body, {
      'webhook-id': id,
      'webhook-timestamp': String(time),
      'webhook-signature': signature,
    });
  /** A webhook as it must be. */
  const postGood = async (id: string, body: string): Promise<void> => {
    const time = now();
    expect((await post(id, time, sign(id, time, body), body)).status).toBe(204);
  };
  /** The lines that the receiver printed about these webhooks, once it printed this line. */
  const printedOnce = async (line: RegExp, about: RegExp): Promise<string[]> => {
    await until(() => line.test(printed), `${line.source} in the output of the receiver`);
    return printed.split('\n').filter((each) => about.test(each));
  };

  it('the receiver of docs/alerts.md accepts a webhook of the service', async () => {
    const its = await begin({
      ALERT_WEBHOOK_URL: `${url}/hooks`,
      ALERT_WEBHOOK_SECRET: `${SECRET_TWO},${SECRET_ONE}`,
    });
    raise(its);
    await delivered(its);
    const [line = ''] = await printedOnce(/alert\.reuse/, /alert\.reuse/);
    expect(JSON.parse(line)).toMatchObject({ type: 'alert.reuse', data: { alert: 'token_reused' } });
  });

  it('the receiver of docs/alerts.md accepts a webhook twice, and prints it once', async () => {
    for (const id of ['msg_twice', 'msg_twice', 'msg_once']) await postGood(id, bodyOf(id));
    expect(await printedOnce(/msg_once/, /msg_twice|msg_once/)).toHaveLength(2);
  });

  it.each<[string, (id: string, time: number, body: string) => Promise<Answer>]>([
    ['another body', (id, time, body) => post(id, time, sign(id, time, body), body.replace('0', '1'))],
    ['another id', (id, time, body) => post(`${id}_`, time, sign(id, time, body), body)],
    ['another time', (id, time, body) => post(id, time - 1, sign(id, time, body), body)],
    [
      'the signature of another key',
      (id, time, body) => post(id, time, sign(id, time, body, SIGNING[1]), body),
    ],
    ['no signature', (id, time, body) => post(id, time, '', body)],
    ['half a signature', (id, time, body) => post(id, time, sign(id, time, body).slice(0, 20), body)],
    ['a longer signature', (id, time, body) => post(id, time, `${sign(id, time, body)}A`, body)],
    [
      'another version of the signature',
      (id, time, body) => post(id, time, sign(id, time, body).replace('v1', 'v0'), body),
    ],
    ['a time long past', (id, time, body) => post(id, time - 310, sign(id, time - 310, body), body)],
    ['a time in the future', (id, time, body) => post(id, time + 3_600, sign(id, time + 3_600, body), body)],
    ['no time', (id, _, body) => post(id, 'NaN', sign(id, 'NaN', body), body)],
  ])('the receiver of docs/alerts.md refuses a webhook with %s', async (name, send) => {
    const id = `msg_${name.replaceAll(' ', '_')}`;
    expect((await send(id, now(), bodyOf(id))).status).toBe(401);
    // The same without that fault is accepted, and is the first that is printed.
    await postGood(id, bodyOf(id));
    expect(await printedOnce(new RegExp(id), new RegExp(id))).toEqual([bodyOf(id)]);
  });

  it('the receiver of docs/alerts.md refuses a body that is too large', async () => {
    expect((await post('msg_large', now(), 'v1,x', 'x'.repeat(70_000))).status).toBe(413);
  });
});
