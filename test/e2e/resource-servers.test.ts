import { freePort } from '../support/free-port';
import { itVerifies, Recipes } from '../support/recipes';
import { bearer } from '../support/tokens';
import { call, freshNumber, until } from '../support/world';

// The recipes of docs/resource-servers.md for Node.js, taken from the page and run against the service. Those for other
// languages are run by test/commands/resource-servers.test.ts.

let recipes: Recipes;

beforeAll(async () => {
  recipes = await Recipes.start();
});
afterAll(() => recipes.close());

/** The page's middleware in front of a route, in a process of its own: the address to ask. */
async function serve(file: string, variables = recipes.environment): Promise<string> {
  const text = `
    import express from 'express';
    import { authenticate } from './${file}';
    const app = express();
    app.get('/', authenticate, (request, response) => {
      response.json({ user: (request.user ?? request.auth.payload).sub });
    });
    const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));`;
  recipes.write(`serve-${file}`, text);
  const program = recipes.run(process.execPath, [`serve-${file}`], variables);
  return `http://127.0.0.1:${await program.line()}/`;
}

async function verifyByHttp(url: string, token: string): Promise<string | undefined> {
  const { status, body, headers } = await call('GET', url, undefined, bearer(token));
  if (status === 200) return body.user as string;
  expect([status, headers.get('www-authenticate')]).toEqual([401, expect.stringMatching(/^Bearer /)]);
  return undefined;
}

describe('the Node.js recipe', () => {
  let url: string;
  itVerifies(
    'the Node.js recipe',
    () => recipes,
    async () => {
      url = await serve('authenticate.mjs');
      return (token) => verifyByHttp(url, token);
    },
  );

  it('the Node.js recipe refuses the tokens of ended sessions and no others', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [await recipes.login(phoneNumber), await recipes.login(phoneNumber)];
    const other = await recipes.login();
    const tokens = [first.accessToken, second.accessToken];
    for (const token of tokens) expect(await verifyByHttp(url, token)).toBe(first.user.id);

    const sessions = `${recipes.issuer}/auth/sessions`;
    const ended = await call('DELETE', sessions, undefined, bearer(first.accessToken));
    expect(ended.status).toBe(204);
    for (const token of tokens)
      await until(async () => (await verifyByHttp(url, token)) === undefined, 'the refusal');
    expect(await verifyByHttp(url, other.accessToken)).toBe(other.user.id);
  });

  it('the Node.js recipe asks a request without a token for one', async () => {
    const { status, headers } = await call('GET', url);
    expect([status, headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
  });

  it.each([
    ['otp-login is away', async () => ({ ISSUER: `http://127.0.0.1:${await freePort()}` })],
    ['the keys cannot be read', () => ({ ISSUER: `${recipes.issuer}/nowhere` })],
    ['the feed of revocations cannot be read', () => ({ OTP_LOGIN_CLIENT: 'shop:wrong' })],
  ])('the Node.js recipe answers 503 and logs no user out while %s', async (_, broken) => {
    const at = await serve('authenticate.mjs', { ...recipes.environment, ...(await broken()) });
    expect((await call('GET', at, undefined, bearer(recipes.forge()))).status).toBe(503);
  });
});

describe('the recipe for express-oauth2-jwt-bearer', () => {
  itVerifies(
    'the recipe for express-oauth2-jwt-bearer',
    () => recipes,
    async () => {
      const url = await serve('bearer.mjs');
      return (token) => verifyByHttp(url, token);
    },
  );
});
