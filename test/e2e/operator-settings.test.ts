import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import {
  anotherInstance,
  call,
  login,
  sendOtp,
  startWorld,
  statusAndCode,
  type Instance,
  type World,
} from '../support/world';
import { bearer } from '../support/tokens';

const ISSUER = 'https://login.example/accounts/in/';
/** libphonenumber's carrier data knows its series, and its number data calls it a landline. */
const NUMBER = '+916747912345';

let world: World;
let plain: Instance;

beforeAll(async () => {
  world = await startWorld({
    variables: { ISSUER, KEEP_ALIVE_SECONDS: '620', EXTRA_MOBILE_SERIES: '62999,67479' },
  });
  plain = await anotherInstance(world);
});
afterAll(async () => {
  await plain.close();
  await world.close();
});

describe('EXTRA_MOBILE_SERIES', () => {
  it('a number of the series logs in, refreshes and is shown at /auth/me', async () => {
    const { status, body } = await login(world, NUMBER);
    expect([status, body.user?.phoneNumber]).toEqual([200, NUMBER]);
    const { body: refreshed } = await call('POST', `${world.url}/auth/refresh`, {
      refreshToken: body.refreshToken,
    });
    const me = await call('GET', `${world.url}/auth/me`, undefined, bearer(refreshed.accessToken as string));
    expect(me.body.phoneNumber).toBe(NUMBER);
    // The session also lives on after an operator took the series away, or metadata that knows it arrived.
    const elsewhere = await call('POST', `${plain.url}/auth/refresh`, {
      refreshToken: refreshed.refreshToken,
    });
    expect(elsewhere.status).toBe(200);
  });

  it('an instance without the series refuses its numbers, also while another instance of the process has it', async () => {
    const [refused, accepted] = await Promise.all([
      sendOtp(plain.url, NUMBER),
      sendOtp(world.url, '+916747954321'),
    ]);
    expect(statusAndCode(refused)).toEqual([400, 'validation_failed']);
    expect(accepted.status).toBe(200);
  });

  it('an instance with the series still refuses the landlines of others', async () => {
    expect(statusAndCode(await sendOtp(world.url, '+917925960663'))).toEqual([400, 'validation_failed']);
  });
});

describe('an ISSUER with a path', () => {
  const NAME = '/.well-known/oauth-authorization-server';

  it.each([NAME, `${NAME}/accounts/in`, `/accounts/in${NAME}`, `${NAME}/accounts/in?x=1`])(
    'the service answers %s with its metadata',
    async (path) => {
      const { status, headers, body } = await call('GET', world.url + path);
      expect([status, body.issuer, headers.get('cache-control')]).toEqual([
        200,
        ISSUER,
        'public, max-age=300',
      ]);
    },
  );

  it.each([
    `${NAME}/accounts`,
    `${NAME}/accounts/in/more`,
    `/accounts${NAME}`,
    '/accounts/in',
    '/accounts/in/auth/me',
  ])('the service does not know %s', async (path) => {
    expect(statusAndCode(await call('GET', world.url + path))).toEqual([404, 'not_found']);
  });

  it('an instance whose ISSUER has no path serves its metadata at one place', async () => {
    expect((await call('GET', plain.url + NAME)).status).toBe(200);
    expect((await call('GET', `${plain.url}${NAME}/accounts/in`)).status).toBe(404);
  });
});

describe('the JWKS', () => {
  const ask = (known?: string) =>
    call(
      'GET',
      `${world.url}/.well-known/jwks.json`,
      undefined,
      known === undefined ? {} : { 'if-none-match': known },
    );

  it('the JWKS is answered with 304 for its own tag, weak or in a list, and for *', async () => {
    const first = await ask();
    const etag = first.headers.get('etag') ?? '';
    expect(etag).toMatch(/^"[\w-]+"$/);
    for (const known of [etag, `W/${etag}`, `"x", ${etag}`, `"a,b",W/${etag}`, ' * ']) {
      const { status, headers, body } = await ask(known);
      expect([known, status, headers.get('etag'), body]).toEqual([known, 304, etag, '']);
      expect(headers.get('cache-control')).toBe('public, max-age=300');
    }
  });

  it('the JWKS is answered whole for any other tag', async () => {
    for (const known of ['"x"', 'W/"x"', 'x', '"*"', '']) {
      const { status, body } = await ask(known);
      expect([known, status, body.keys.length]).toEqual([known, 200, 1]);
    }
  });
});

describe('KEEP_ALIVE_SECONDS', () => {
  it('the service keeps an idle connection for as long as the setting says, and tells the client', async () => {
    for (const [{ app, url }, seconds] of [
      [world.instances[0]!, 620],
      [plain, 75],
    ] as const) {
      const asked = request(`${url}/health/live`, { headers: { connection: 'keep-alive' } }).end();
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      response.resume();
      expect(response.headers['keep-alive']).toBe(`timeout=${seconds}`);
      expect(app.getHttpServer().keepAliveTimeout).toBe(seconds * 1_000);
      asked.destroy();
    }
  });
});
