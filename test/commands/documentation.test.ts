import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Checkout, type Command, ROOT } from '../support/checkout';
import { freePort } from '../support/free-port';
import { redisOfWorker } from '../support/redis-of-worker';
import { service } from '../support/service';
import { API_KEY, call, login, SECRET, SUBJECT_SECRET, type World } from '../support/world';
import { until } from '../support/hang';

// The commands that the documentation shows. Those of shell blocks are run as they stand, with other ports and with what
// their reader fills in. Names of npm scripts and of test files are looked up; test/commands/npm.test.ts runs the scripts.

const PAGES = [
  ...readdirSync(ROOT).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];
/** What needs a cluster, an engine for images or a vault. CONTRIBUTING.md names them, too. */
const NOT_RUN = ['docker', 'kubectl', 'kustomize', 'yq', 'your-vault'];
/** Functions of docs/operations.md that call kubectl. */
const BY_KUBECTL = ['put', 'get', 'seen'];

/** The first words of each block that a test below runs. */
const BLOCKS = {
  demo: 'npm run demo',
  tests: 'npm test',
  send: 'curl -X POST localhost:3000/auth/send-otp',
  verify: 'curl -X POST localhost:3000/auth/verify-otp',
  me: 'curl localhost:3000/auth/me',
  production: 'npm ci && npm run build',
  audit: 'redis-cli XREVRANGE',
  webhookSecret: 'echo "whsec_',
  adminToken: 'NAME=asha',
  admin: 'curl -H "Authorization: Bearer $TOKEN" \'localhost:3000/admin/usage',
  drill: 'npm run build && cd',
  introspect: 'curl -u id:secret',
};
/** A line that is run without the others of its block. */
const END_ALL_SESSIONS = "redis-cli --scan --pattern 'otp-login:*:session:*'";

const read = (page: string): string => readFileSync(join(ROOT, page), 'utf8');
const blocks = PAGES.flatMap((page) =>
  [...read(page).matchAll(/^( *)```(?:sh|bash|shell|console)\n([^]*?)^ *```$/gm)].map(([, indent, text]) => ({
    page,
    text: text!.replaceAll(new RegExp(`^${indent!}`, 'gm'), ''),
  })),
);
const isRun = (text: string): boolean => Object.values(BLOCKS).some((begin) => text.startsWith(begin));
/** The lines of a block, those that end with a backslash joined. */
const linesOf = (text: string): string[] =>
  text
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .filter((line) => line !== '');
const ownLines = blocks.flatMap(({ text }) => (isRun(text) ? linesOf(text) : []));

function block(begin: string): string {
  const found = blocks.filter(({ text }) => text.startsWith(begin));
  if (found.length !== 1) throw new Error(`${found.length} blocks begin with ${begin}`);
  return found[0]!.text;
}

const inline = PAGES.flatMap((page) =>
  [
    ...read(page)
      .replaceAll(/^ *```[^]*?^ *```$/gm, '')
      .matchAll(/`((?:npm|npx|node|curl) [^`]+)`/g),
  ].map(([, text]) => ({ page, text: text!.replaceAll(/\s+/g, ' ') })),
);
const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
const testFiles = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => `test/${file}`);

describe('the list of commands', () => {
  test('every shell block of the documentation is run here, or needs a program that is not run', () => {
    const words = new RegExp(`(^|[\\s;({|])(${[...NOT_RUN, ...BY_KUBECTL].join('|')})\\b`);
    const forgotten = blocks
      .filter(({ text }) => !isRun(text))
      .flatMap(({ page, text }) =>
        linesOf(text)
          // A loop around such a program is as little run as the program.
          .filter((line) => !words.test(text) || /^(npm|npx|node|curl|redis-cli|openssl|echo)\b/.test(line))
          .filter((line) => !ownLines.includes(line) && !line.startsWith(END_ALL_SESSIONS))
          .map((line) => `${page}: ${line}`),
      );
    expect(forgotten).toEqual([]);
  });

  test('every block that this file runs is in the documentation', () => {
    for (const begin of Object.values(BLOCKS)) expect(block(begin)).not.toBe('');
  });

  test('every npm script that a sentence of the documentation names exists', () => {
    const missing = inline.filter(({ text }) => {
      const [, name] = /^npm (?:run )?([\w:]+)/.exec(text) ?? [];
      return name !== undefined && name !== 'ci' && !(name in scripts);
    });
    expect(missing).toEqual([]);
  });

  test('every test file that a sentence of the documentation names exists', () => {
    const missing = inline.flatMap(({ page, text }) => {
      const [, given] = /^npm (?:test|run test:\w+) -- (.*)$/.exec(text) ?? [];
      const patterns = (given ?? '').replace(/-t (".*?"|'.*?'|\S+)/, '').split(' ');
      return patterns
        .filter((pattern) => pattern !== '' && !pattern.startsWith('--'))
        .filter((pattern) => !testFiles.some((file) => file.includes(pattern)))
        .map((pattern) => `${page}: ${pattern}`);
    });
    expect(missing).toEqual([]);
  });

  test('every node command that a sentence of the documentation names is run by a test of the commands', () => {
    const tests = [__filename, join(__dirname, 'npm.test.ts')].map((file) => readFileSync(file, 'utf8'));
    const missing = inline.filter(
      ({ text }) => /^(node|npx|curl) /.test(text) && !tests.some((file) => file.includes(text)),
    );
    expect(missing).toEqual([]);
  });

  test('CONTRIBUTING.md names every program that is not run', () => {
    const text = read('CONTRIBUTING.md');
    expect(NOT_RUN.filter((name) => !text.includes(`\`${name}`))).toEqual([]);
  });
});

describe('the commands', () => {
  let checkout: Checkout;
  let world: World;
  let running: Command;
  let redis: string;
  let token: string;
  const CLIENT = { id: 'orders', secret: 'a-secret-of-the-orders-service-0123' };

  jest.setTimeout(600_000);

  beforeAll(async () => {
    checkout = new Checkout();
    // The drill builds, and the others run what it built.
    await drill(checkout);
    const secret = (await checkout.run(block(BLOCKS.webhookSecret))).printed.trim();
    const admin = await checkout.run(block(BLOCKS.adminToken));
    const [madeToken, adminTokens] = admin.printed.trim().split('\nADMIN_TOKENS=');
    token = madeToken!;
    const [upstream, { url: redisUrl }] = await Promise.all([service().startEmulator(), redisOfWorker()]);
    const { port, pathname } = new URL(redisUrl);
    redis = `redis-cli -p ${port} -n ${pathname.slice(1)}`;
    running = checkout.start('npm start', {
      NODE_ENV: 'test',
      HOST: '127.0.0.1',
      PORT: '0',
      REDIS_URL: redisUrl,
      SECRET,
      SUBJECT_SECRET,
      STARTMESSAGING_API_KEY: API_KEY,
      STARTMESSAGING_BASE_URL: upstream.url,
      ADMIN_TOKENS: adminTokens,
      INTROSPECTION_CLIENTS: `${CLIENT.id}:${CLIENT.secret}`,
      ALERT_WEBHOOK_URL: 'http://127.0.0.1:9/',
      ALERT_WEBHOOK_SECRET: secret,
      SHUTDOWN_DELAY_SECONDS: '0',
    });
    const [, url] = await running.prints(/"url":"([^"]+)".*"msg":"otp-login listens"/);
    await until(async () => (await call('GET', `${url!}/health/ready`)).status === 200, 'readiness');
    world = {
      url: url!,
      upstream,
      redis: { url: redisUrl },
      redisTimeoutMs: undefined,
      instances: [],
      close: () => upstream.close(),
    };
  });
  afterAll(async () => {
    await checkout.remove();
    await world.close();
  });

  /** A command of a page, at the service that runs here and not at the one of the page. */
  const run = async (line: string, variables: Record<string, string> = {}): Promise<string> => {
    const { host } = new URL(world.url);
    const here = line
      .replace(/^curl /, 'curl -sS --fail-with-body ')
      .replace(/https:\/\/otp-login\.example\.com|localhost:3000/, `http://${host}`)
      .replaceAll('redis-cli', redis);
    const { code, printed } = await checkout.run(here, variables);
    expect([here, code, printed]).toEqual([here, 0, expect.any(String)]);
    return printed;
  };

  /** The last steps of docs/operations.md#back-up, and the id that they print. */
  let drilled: string;
  async function drill(where: Checkout): Promise<void> {
    writeFileSync(join(where.folder, 'subject-secret'), SUBJECT_SECRET);
    const text = block(BLOCKS.drill)
      .replace('/path/from/the/vault', join(where.folder, 'subject-secret'))
      .replaceAll('3999', String(await freePort()));
    const { code, printed } = await where.run(text);
    expect([code, printed]).toEqual([0, expect.any(String)]);
    // The last line is of `cd -`.
    drilled = printed.trim().split('\n').at(-2)!;
  }

  test('the drill of a backup prints an id that depends on the secret and the number alone', () => {
    expect(drilled).toMatch(/^[\w-]{20,}$/);
  });

  test('the calls of the README log in at the demo', async () => {
    const [port, inbox] = [String(await freePort()), String(await freePort())];
    const demo = checkout.start(block(BLOCKS.demo), { PORT: port, EMULATOR_PORT: inbox });
    await demo.prints(/Ctrl-C ends it/);
    const [send, verify, me] = [BLOCKS.send, BLOCKS.verify, BLOCKS.me].map((begin) =>
      block(begin).trim().replace('localhost:3000', `localhost:${port}`),
    ) as [string, string, string];
    const sent = JSON.parse(await run(send)) as { requestId: string };
    const { body } = await call('GET', `http://127.0.0.1:${inbox}/_emulator/messages`);
    const filled = verify.replace('…', sent.requestId).replace('…', body.messages.at(-1).code as string);
    const { accessToken } = JSON.parse(await run(filled)) as { accessToken: string };
    expect(JSON.parse(await run(me.replace('…', accessToken)))).toMatchObject({
      phoneNumber: '+919876543210',
    });
    await demo.stop('SIGINT');
  });

  test('the commands of the README make a signing key and start the service in production', async () => {
    // test/commands/npm.test.ts runs the first line on an installation of its own.
    const [, keys, start] = linesOf(block(BLOCKS.production)) as [string, string, string];
    const folder = join(checkout.folder, 'production-keys');
    const made = await checkout.run(keys.replace('/etc/otp-login/keys', folder));
    expect(made).toMatchObject({ code: 0 });
    const running = checkout.start(start, {
      HOST: '127.0.0.1',
      PORT: '0',
      ISSUER: 'https://login.example.com',
      REDIS_URL: world.redis.url,
      SECRET,
      SUBJECT_SECRET,
      STARTMESSAGING_API_KEY: API_KEY,
      STARTMESSAGING_BASE_URL: world.upstream.url,
      STARTMESSAGING_CONTRACT: 'provider',
      JWT_KEYS_DIR: folder,
      BUDGET_PAISE_PER_DAY: '100000',
      SHUTDOWN_DELAY_SECONDS: '0',
    });
    await running.prints(/"msg":"otp-login listens"/);
    await running.stop('SIGTERM');
  });

  test('the README shows npm test, which test/commands/npm.test.ts runs', () => {
    expect(block(BLOCKS.tests)).toBe('npm test\n');
  });

  test('the calls for operators show the usage and the abuse control, and block a number', async () => {
    const [usage, abuse, blocking] = linesOf(block(BLOCKS.admin)) as [string, string, string];
    expect(JSON.parse(await run(usage, { TOKEN: token }))).toHaveProperty('days');
    expect(JSON.parse(await run(abuse, { TOKEN: token }))).toHaveProperty('modes');
    await run(blocking, { TOKEN: token });
    const refused = await call('POST', `${world.url}/auth/send-otp`, { phoneNumber: '+919876543210' });
    expect(refused.body.code).toBe('phone_number_rejected');
  });

  test('the introspection call tells that a token is active', async () => {
    const { body } = await login(world);
    const line = block(BLOCKS.introspect).trim();
    const filled = line
      .replace('id:secret', `${CLIENT.id}:${CLIENT.secret}`)
      .replace('…', body.accessToken as string);
    expect(JSON.parse(await run(filled))).toMatchObject({ active: true, token_type: 'Bearer' });
  });

  test('the command for the audit shows a login', async () => {
    const { body } = await login(world);
    await until(
      async () => (await run(block(BLOCKS.audit))).includes(body.user.id as string),
      'the login in the audit',
    );
  });

  test('the command that ends every session in Redis ends a session', async () => {
    const { body } = await login(world);
    const bearer = { authorization: `Bearer ${body.accessToken as string}` };
    expect((await call('GET', `${world.url}/auth/me`, undefined, bearer)).status).toBe(200);
    const line = blocks
      .flatMap(({ text }) => linesOf(text))
      .find((each) => each.startsWith(END_ALL_SESSIONS))!;
    await run(line);
    expect((await call('GET', `${world.url}/auth/me`, undefined, bearer)).status).toBe(401);
  });
});
