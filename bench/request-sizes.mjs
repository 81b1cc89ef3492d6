// `node bench/request-sizes.mjs`: the CPU time that requests of 16 KB cost the service, beside that of an empty request to the same route. An
// attacker chooses what a request contains, and must not choose how much work it is. Linux only.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch, startRedis } from '../scripts/children.mjs';
import { freePort, giveUp, prepare, ready, ROOT } from '../scripts/project.mjs';
import { cpuMs, median, part } from './parts.mjs';

const COUNT = part(300);
const WARM_UP = part(1_500);
const TURNS = 5;
const AT_ONCE = 8;
/** The greatest cost that a request may have, as a multiple of an empty one. */
const MOST_TIMES = 4;
/** With fewer requests the CPU time is mostly that of the garbage collection and the compiler. */
const ENOUGH = 200;
const BODY_BYTES = 16_384;
/** Node.js refuses more than 16 KB of headers in all. */
const HEADER_BYTES = 15_000;

if (process.platform !== 'linux') giveUp('CPU times are read from /proc: run it on Linux.');
prepare();
const folder = mkdtempSync(join(tmpdir(), 'otp-login-sizes-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const { port: redisPort } = await startRedis('--dir', folder);
const port = await freePort();
const service = launch(process.execPath, [join(ROOT, 'dist', 'main.js')], {
  // Not in the checkout: the service would read a developer's .env there.
  cwd: folder,
  env: {
    PATH: process.env.PATH,
    HOST: '127.0.0.1',
    PORT: String(port),
    REDIS_URL: `redis://127.0.0.1:${redisPort}`,
    STARTMESSAGING_API_KEY: `sm_live_${randomBytes(20).toString('hex')}`,
    TRUSTED_PROXIES: '127.0.0.0/8,10.0.0.0/8',
    // Every request is worked on, and none is refused for its number.
    LIMIT_IP: '1000000/1',
    LIMIT_VERIFY_IP: '1000000/1',
  },
});
if (!(await ready(`http://127.0.0.1:${port}`, () => service.exitCode !== null)))
  giveUp(`The service did not start:\n${service.printed}`);

/** The text as often as it fits into so many bytes. */
const fill = (text, bytes) => text.repeat(Math.floor(bytes / Buffer.byteLength(text)));
const JSON_TYPE = { 'content-type': 'application/json' };
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const post = (path, body, headers = {}) => ({
  method: 'POST',
  path,
  headers: { ...JSON_TYPE, ...headers },
  body,
});
/** A body of exactly 16 KB, with the text between both ends as often as it fits. */
const send = (begin, text, end) => {
  const filled = begin + fill(text, BODY_BYTES - begin.length - end.length);
  return post('/auth/send-otp', filled.padEnd(BODY_BYTES - end.length) + end);
};
const header = (name, text) => post('/auth/send-otp', '{}', { [name]: fill(text, HEADER_BYTES).trim() });
let names = 1_000;
/** Each name is a new one: JavaScript keeps the names of fields that it has seen. */
const fields = (before, after, space) =>
  Array.from({ length: Math.floor(BODY_BYTES / 12) }, () => `${before}${names++}${after}`).join(space);
const form = (body) => ({ method: 'POST', path: '/oauth/token', headers: FORM, body });
const get = (path, headers = {}) => ({ method: 'GET', path, headers });

const groups = {
  'POST /auth/send-otp': {
    empty: post('/auth/send-otp', '{}'),
    'a long text': send('{"phoneNumber":"', 'x', '"}'),
    'phone numbers': send('{"phoneNumber":"', '+919876543210 ', '"}'),
    'groups of digits': send('{"requestId":"', '1234 ', '"}'),
    'escaped characters': send('{"phoneNumber":"', '\\u0039', '"}'),
    'many fields': () => post('/auth/send-otp', `{${fields('"f', '":1', ',')}}`),
    'an array of numbers': send('{"phoneNumber":[1', ',1', ']}'),
    'nested arrays': send('{"phoneNumber":', '[', '}'),
    'no JSON': send('{"a":', '{"a":', '}'),
    'a header of digits': header('x-request-id', '1234 '),
    'a header of tokens': header('authorization', 'Bearer eyJhbGciOiJFUzI1NiJ9.e30.AAAA '),
    'a cookie of many': header('cookie', 'a=1; '),
    'a long Idempotency-Key': header('idempotency-key', 'A1b2'),
    'many proxies': header('x-forwarded-for', '10.0.0.1,'),
    'a long user agent': header('user-agent', 'Chrome/1.2 (Android) '),
  },
  'POST /auth/verify-otp': {
    empty: post('/auth/verify-otp', '{}'),
    'a long request id': post('/auth/verify-otp', `{"requestId":"${fill('A', 16_000)}","otpCode":"123456"}`),
    'a long code': post('/auth/verify-otp', `{"requestId":"A","otpCode":"${fill('1', 16_000)}"}`),
    'a long device token': post('/auth/verify-otp', `{"deviceToken":"${fill('a.', 16_000)}"}`),
  },
  'POST /auth/refresh': {
    empty: post('/auth/refresh', '{}'),
    'a long token': post('/auth/refresh', `{"refreshToken":"${fill('a.', 16_000)}"}`),
  },
  'POST /auth/logout': {
    empty: post('/auth/logout', '{}'),
    'many fields': () => post('/auth/logout', `{${fields('"f', '":1', ',')}}`),
    'many parameters': () => post('/auth/logout', fields('fie', '=1', '&')),
  },
  'POST /oauth/token': {
    empty: form(''),
    'many parameters': () => form(fields('fie', '=1', '&')),
    'escaped characters': form(`refresh_token=${fill('%31', BODY_BYTES - 14)}`),
  },
  'GET /auth/me': {
    empty: get('/auth/me'),
    'a long token': get('/auth/me', { authorization: `Bearer ${fill('eyJ.', HEADER_BYTES)}` }),
    'many parameters': () => get(`/auth/me?${fields('a', '=1', '&')}`),
  },
  'GET /.well-known/jwks.json': {
    empty: get('/.well-known/jwks.json'),
    'many entity tags': get('/.well-known/jwks.json', { 'if-none-match': fill('"a",', HEADER_BYTES) }),
  },
};

const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
const call = ({ method, path, headers, body }) =>
  new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
    const options = { agent, host: '127.0.0.1', port, method, path, headers: { ...headers, ...length } };
    request(options, (answer) => answer.resume().once('end', () => resolve(answer.statusCode)))
      .once('error', reject)
      .end(body);
  });

/** Milliseconds of CPU for one request of a kind. */
async function costOf(kind, requests) {
  const before = cpuMs(service.pid);
  let left = requests;
  const worker = async () => {
    while (left-- > 0) {
      const one = typeof kind === 'function' ? kind() : kind;
      const status = await call(one);
      if (status >= 500 || status === 429) giveUp(`${one.path} was answered with ${status}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return (cpuMs(service.pid) - before) / requests;
}

const row = (...cells) =>
  console.log(
    cells[0].padEnd(30) +
      cells
        .slice(1)
        .map((cell) => cell.padStart(14))
        .join(''),
  );
await costOf(groups['POST /auth/send-otp'].empty, WARM_UP);
row('a request of 16 KB', 'service ms', 'times empty');
let worst = 0;
for (const [route, kinds] of Object.entries(groups)) {
  const costs = Object.fromEntries(Object.keys(kinds).map((name) => [name, []]));
  // In turns, so that a busy moment of the machine is in the cost of all kinds.
  for (let turn = 0; turn < TURNS; turn++)
    for (const [name, kind] of Object.entries(kinds)) costs[name].push(await costOf(kind, COUNT));
  console.log(route);
  for (const [name, all] of Object.entries(costs)) {
    const times = median(all) / median(costs.empty);
    worst = Math.max(worst, times);
    row(`  ${name}`, median(all).toFixed(3), times.toFixed(2));
  }
}
const judged = COUNT >= ENOUGH;
console.log(
  `the costliest: ${worst.toFixed(2)} times an empty request; allowed: ${MOST_TIMES}${judged ? '' : ', not judged with so few'}`,
);
process.exit(judged && worst > MOST_TIMES ? 1 : 0);
