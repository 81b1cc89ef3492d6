import { client as clients } from '../support/client';
import { bearer, claimsOf } from '../support/tokens';
import {
  call,
  freshNumber,
  login,
  startWorld,
  statusAndCode,
  textedCode,
  type Answer,
  type World,
} from '../support/world';

const ORDERS = 'https://orders.example.com';
const STOCK = 'urn:example:stock';
const CLIENT = {
  authorization: `Basic ${Buffer.from('api:introspection-secret-of-32-characters').toString('base64')}`,
};

let world: World;
beforeAll(async () => {
  world = await startWorld({
    variables: {
      RESOURCE_AUDIENCES: `${ORDERS}, ${STOCK}`,
      INTROSPECTION_CLIENTS: 'api:introspection-secret-of-32-characters',
    },
  });
});
afterAll(() => world.close());

const refresh = (refreshToken: unknown, resource?: unknown): Promise<Answer> =>
  call('POST', `${world.url}/auth/refresh`, { refreshToken, resource });
const form = (path: string, fields: Record<string, string>, headers = {}): Promise<Answer> =>
  call('POST', `${world.url}/oauth/${path}`, new URLSearchParams(fields).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
    ...headers,
  });
const audienceOf = (token: unknown): unknown => (claimsOf(token) as unknown as { aud: unknown }).aud;
const me = (token: unknown): Promise<Answer> => call('GET', `${world.url}/auth/me`, undefined, bearer(token));

describe('a token for a resource server', () => {
  let own: Answer;
  let token: string;
  beforeAll(async () => {
    own = await login(world);
    own = await refresh(own.body.refreshToken, ORDERS);
    token = own.body.accessToken as string;
  });

  it('a refresh with resource gets a token with that audience, and one without gets AUDIENCE', async () => {
    expect([own.status, audienceOf(token)]).toEqual([200, ORDERS]);
    own = await refresh(own.body.refreshToken, STOCK);
    expect(audienceOf(own.body.accessToken)).toBe(STOCK);
    own = await refresh(own.body.refreshToken, null);
    expect(audienceOf(own.body.accessToken)).toBe('otp-login');
    expect((await me(own.body.accessToken)).status).toBe(200);
  });

  it.each([
    ['GET', '/auth/me'],
    ['GET', '/auth/sessions'],
    ['DELETE', '/auth/sessions'],
    ['DELETE', '/auth/sessions?others=true'],
    ['DELETE', '/auth/sessions/AAAAAAAAAAAAAAAAAAAAAA'],
  ])('a resource server with a user’s token is refused at %s %s', async (method, path) => {
    const answer = await call(method, world.url + path, undefined, bearer(token));
    expect(statusAndCode(answer)).toEqual([401, 'unauthenticated']);
  });

  it('a resource server with a user’s token ends no session by a log-out or a revocation', async () => {
    expect((await call('POST', `${world.url}/auth/logout`, undefined, bearer(token))).status).toBe(204);
    expect((await form('revoke', { token })).status).toBe(200);
    expect((await me(own.body.accessToken)).status).toBe(200);
  });

  it('a resource server learns by introspection that its token is active', async () => {
    expect((await form('introspect', { token }, CLIENT)).body).toMatchObject({ active: true, aud: ORDERS });
  });
});

it.each([['https://orders.example.com/'], ['https://evil.example'], ['']])(
  'a refresh for the unknown resource %j is 400, and the refresh token stays unused',
  async (resource) => {
    const own = await login(world);
    const refused = await refresh(own.body.refreshToken, resource);
    expect(statusAndCode(refused)).toEqual([400, 'validation_failed']);
    expect(refused.body.errors).toMatchObject([{ field: 'resource' }]);
    const next = await refresh(own.body.refreshToken);
    expect([next.status, claimsOf(next.body.accessToken).sid]).toEqual([
      200,
      claimsOf(own.body.accessToken).sid,
    ]);
  },
);

it('a refresh with a resource that is a list is 400', async () => {
  const own = await login(world);
  expect(statusAndCode(await refresh(own.body.refreshToken, [ORDERS]))).toEqual([400, 'validation_failed']);
});

it('an OAuth client gets a token of the resource that it names, and invalid_target for an unknown one', async () => {
  const own = await login(world);
  const fields = { grant_type: 'refresh_token', refresh_token: own.body.refreshToken as string };
  const refused = await form('token', { ...fields, resource: 'https://evil.example' });
  expect([refused.status, refused.body.error]).toEqual([400, 'invalid_target']);
  const answer = await form('token', { ...fields, resource: ORDERS });
  expect([answer.status, audienceOf(answer.body.access_token)]).toEqual([200, ORDERS]);
});

it('the client of the browser holds a token for each resource beside its own', async () => {
  const client = clients().createOtpLogin({ url: world.url });
  const number = freshNumber();
  const sent = await client.sendOtp(number);
  await client.verifyOtp(sent, textedCode(world.upstream, number));
  const orders = await client.accessToken({ resource: ORDERS });
  expect(audienceOf(orders)).toBe(ORDERS);
  expect(await client.accessToken({ resource: ORDERS })).toBe(orders);
  const token = await client.accessToken();
  expect(audienceOf(token)).toBe('otp-login');
  expect((await me(token)).status).toBe(200);
});
