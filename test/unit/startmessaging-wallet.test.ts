import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startEmulator } from '../../src/emulator/emulator';
import { standaloneClient } from '../../src/startmessaging/standalone';
import { UpstreamError } from '../../src/upstream/upstream.error';
import { readBalance } from '../../src/startmessaging/wallet';

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

function clientOf(baseUrl: string, apiKey = `sm_live_${'5e'.repeat(20)}`, timeoutMs = 2_000) {
  const client = standaloneClient({
    baseUrl,
    apiKey,
    appName: 'x',
    timeoutMs,
    connectTimeoutMs: 1_000,
    retryDelayMs: 1,
    maxAttempts: 3,
    deadlineMs: 3_000,
  });
  return client;
}

/** A StartMessaging that gives one answer, or none at all, and counts who asks. */
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
  ] as const)('is told as upstream counts it, in %s', async (walletUnit, balance) => {
    const emulator = await startEmulator();
    cleanUps.push(() => emulator.close());
    Object.assign(emulator.settings, { walletUnit });
    await expect(clientOf(emulator.url).readWallet()).resolves.toEqual({ balance, currency: 'INR' });
    expect(emulator.calls.map(({ method, path }) => `${method} ${path}`)).toEqual(['GET /wallet']);
  });

  test('is not told to a wrong key', async () => {
    const emulator = await startEmulator();
    cleanUps.push(() => emulator.close());
    await expect(reasonOf(clientOf(emulator.url, 'wrong').readWallet())).resolves.toBe('credentials_refused');
  });

  test.each<[number | undefined, unknown, string]>([
    [401, '', 'credentials_refused'],
    [404, { error: { code: 'NOT_FOUND', message: 'Cannot GET /wallet' } }, 'contract_mismatch'],
    [302, '', 'contract_mismatch'],
    [429, '', 'throttled'],
    [500, '', 'failed'],
    [200, '<html>', 'failed'],
    [200, { success: false, data: { balance: 1 } }, 'failed'],
    [undefined, '', 'timed_out'],
  ])('that is answered with %p %p fails as %s, after one call', async (status, body, reason) => {
    const { url, seen } = await answering(status, body);
    await expect(reasonOf(clientOf(url, 'key', 300).readWallet())).resolves.toBe(reason);
    expect(seen).toEqual(['GET /wallet']);
  });

  test('may have an id of its own, which is no message’s', async () => {
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
  ])('a balance of %j is read as %p', (balance, expected) => {
    expect(readBalance({ data: { balance } }).balance).toBe(expected);
  });

  test.each(['inr', 'RUPEES', 'IN\u001b', 7, null, ['INR']])(
    'a currency of %j is as if missing',
    (currency) => {
      expect(readBalance({ data: { currency } })).toEqual({});
    },
  );

  test.each([undefined, null, 'text', [], { data: [] }, { balance: 7 }])('%j holds none', (body) => {
    expect(readBalance(body)).toEqual({});
  });
});
