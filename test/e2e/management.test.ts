import { createServer } from 'node:net';
import { freePort } from '../support/free-port';
import { redisOfWorker } from '../support/redis-of-worker';
import { service } from '../support/service';
import { API_KEY, call, SECRET, SUBJECT_SECRET, until } from '../support/world';

type App = Awaited<ReturnType<ReturnType<typeof service>['createApp']>>;

const PLACES = ['/health/live', '/health/ready', '/health/startup', '/metrics'];
let app: App | undefined;
afterEach(async () => {
  await app?.close();
  app = undefined;
});

async function start(managementPort: number): Promise<{ url: string; management: string }> {
  app = await service().createApp({
    environment: {
      NODE_ENV: 'test',
      HOST: '127.0.0.1',
      MANAGEMENT_PORT: String(managementPort),
      REDIS_URL: (await redisOfWorker()).url,
      STARTMESSAGING_API_KEY: API_KEY,
      WALLET_ALERT_PAISE: '0',
      SECRET,
      SUBJECT_SECRET,
    },
    logs: { write: () => undefined },
  });
  await app.listen(0, '127.0.0.1');
  return { url: await app.getUrl(), management: `http://127.0.0.1:${managementPort}` };
}

it('with MANAGEMENT_PORT its listener serves the probes and the metrics, and the main port answers 404 for them', async () => {
  const { url, management } = await start(await freePort());
  await until(async () => (await call('GET', `${management}/health/ready`)).status === 200);
  for (const path of PLACES) {
    expect([path, (await call('GET', `${management}${path}`)).status]).toEqual([path, 200]);
    for (const place of [path, `${path}?x=1`, path.replace('h', '%68')])
      for (const method of ['GET', 'POST', 'DELETE']) {
        const { status, body } = await call(method, `${url}${place}`);
        expect([method, place, status]).toEqual([method, place, 404]);
        expect(body).toMatchObject({ code: 'not_found' });
      }
  }
  // The other routes are not there.
  for (const path of ['/auth/me', '/.well-known/jwks.json', '/'])
    expect([path, (await call('GET', `${management}${path}`)).status]).toEqual([path, 404]);
  expect((await call('POST', `${management}/auth/send-otp`, {})).status).toBe(404);
  expect((await call('GET', `${url}/auth/me`)).status).toBe(401);
});

it('the service does not start when MANAGEMENT_PORT is taken, and the error names the setting', async () => {
  const taken = createServer();
  const port = await freePort();
  await new Promise<void>((resolve) => taken.listen(port, '127.0.0.1', resolve));
  try {
    await expect(start(port)).rejects.toMatchObject({ code: 'EADDRINUSE', setting: 'MANAGEMENT_PORT' });
  } finally {
    await new Promise((resolve) => taken.close(resolve));
  }
});
