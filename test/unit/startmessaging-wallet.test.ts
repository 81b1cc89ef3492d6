import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startEmulator } from '../../src/emulator/emulator';
import { standaloneClient } from '../../src/startmessaging/startmessaging.client';
import { readBalance } from '../../src/startmessaging/responses';
import { UpstreamError } from '../../src/upstream/upstream.error';
import { HANG_MS, until } from '../support/hang';
import { holdTimers } from '../support/held-timers';

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  jest.restoreAllMocks();
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

function clientOf(baseUrl: string, apiKey = `sm_live_${'5e'.repeat(20)}`, timeoutMs = HANG_MS) {
  const client = standaloneClient({
    baseUrl,
    apiKey,
    appName: 'x',
    timeoutMs,
    connectTimeoutMs: HANG_MS,
    retryDelayMs: 1,
    maxAttempts: 3,
    deadlineMs: HANG_MS,
  });
  return client;
}

/** A StartMessaging that gives one answer, or none at all, and lists the calls. */
async function answering(status?: number, body: unknown = '') {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    if (status !== undefined)
      response.writeHead(status).end(typeof body === 'string' ? body : JSON.stringify(body));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  cleanUps.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error: unknown = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof UpstreamError)) throw new Error('It did not fail as it should');
  return error.reason;
}

describe('the wallet', () => {
  test.each([
    ['rupees', '100'],
    ['millionths', '100000000'],
  ] as const)('the wallet balance is read as upstream counts it, in %s', async (walletUnit, balance) => {
    const emulator = await startEmulator();
    cleanUps.push(() => emulator.close());
    Object.assign(emulator.settings, { walletUnit });
    await expect(clientOf(emulator.url).readWallet()).resolves.toEqual({ balance, currency: 'INR' });
    expect(emulator.calls.map(({ method, path }) => `${method} ${path}`)).toEqual(['GET /wallet']);
  });

  test('the wallet balance is refused to a wrong key', async () => {
    const emulator = await startEmulator();
    cleanUps.push(() => emulator.close());
    await expect(reasonOf(clientOf(emulator.url, 'wrong').readWallet())).resolves.toBe('credentials_refused');
  });

  test.each<[number, unknown, string]>([
    [401, '', 'credentials_refused'],
    [404, { error: { code: 'NOT_FOUND', message: 'Cannot GET /wallet' } }, 'contract_mismatch'],
    [302, '', 'contract_mismatch'],
    [429, '', 'throttled'],
    [500, '', 'failed'],
    [200, '<html>', 'failed'],
    [200, { success: false, data: { balance: 1 } }, 'failed'],
  ])('a wallet response of %p %p fails as %s, after one call', async (status, body, reason) => {
    const { url, seen } = await answering(status, body);
    await expect(reasonOf(clientOf(url, 'key').readWallet())).resolves.toBe(reason);
    expect(seen).toEqual(['GET /wallet']);
  });

  test('a wallet request without a response times out after one call', async () => {
    const timeouts = holdTimers((ms) => ms === 300);
    const { url, seen } = await answering();
    const asked = reasonOf(clientOf(url, 'key', 300).readWallet());
    await until(() => seen.length === 1, 'the call');
    timeouts.fire();
    await expect(asked).resolves.toBe('timed_out');
    expect(seen).toEqual(['GET /wallet']);
  });

  test('the wallet response may have an id, which is not taken for an id of a message', async () => {
    const { url } = await answering(200, { data: { id: 'wallet-1', balance: '7.25', currency: 'INR' } });
    await expect(clientOf(url).readWallet()).resolves.toEqual({ balance: '7.25', currency: 'INR' });
  });

  test.each([
    [100, '100'],
    [0, '0'],
    [-3.5, '-3.5'],
    ['100.2500', '100.2500'],
    ['', undefined],
    ['lots', undefined],
    ['1\u001b[2J', undefined],
    ['9'.repeat(300), undefined],
    [1e21, undefined],
    [null, undefined],
    [true, undefined],
    [['1'], undefined],
    [{}, undefined],
  ])('the wallet balance %j is read as %p', (balance, expected) => {
    expect(readBalance({ data: { balance } }).balance).toBe(expected);
  });

  test.each(['inr', 'RUPEES', 'IN\u001b', 7, null, ['INR']])(
    'the wallet currency %j is treated as missing',
    (currency) => {
      expect(readBalance({ data: { currency } })).toEqual({});
    },
  );

  test.each([undefined, null, 'text', [], { data: [] }, { balance: 7 }])(
    'the wallet response %j holds no balance',
    (body) => {
      expect(readBalance(body)).toEqual({});
    },
  );
});
