// `node bench/rejected-inputs.mjs`: a million rejected inputs, after which Redis is as it was: no key is new but the tables
// that count this one client's address, and these are bounded and expire.
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { inSteps, part } from './parts.mjs';
import { ASKER, dist, login, startWorld } from './world.mjs';

const COUNT = part(1_000_000);
const CONNECTIONS = 8;
/** Requests that a connection has under way. */
const PIPELINED = 32;
/** Wide, so that inputs are judged and not refused for their number. */
const LIMIT = 20_000;
/** The most that the timestamps of all addresses take. */
const MOST_BYTES = 400_000;
const SLACK_BYTES = 512 * 1024;

const world = await startWorld({
  LIMIT_IP: `${LIMIT}/1`,
  LIMIT_VERIFY_IP: `${LIMIT}/1`,
  OTP_TTL_SECONDS: '600',
});
const { app, client } = world;
await app.listen(0, '127.0.0.1');
const { port } = app.getHttpServer().address();

// People in the middle of something: what strangers send must not change it.
const otp = app.get(dist('otp/otp.service').OtpService);
const tokens = app.get(dist('tokens/tokens.service').TokensService);
const requestIds = [];
const tokenSets = [];
for (let i = 0; i < 20; i++) {
  requestIds.push((await otp.request(`+9198${10_000_000 + i}`, ASKER)).requestId);
  const session = await login(world, `+9198${20_000_000 + i}`, { device: 'Bench', address: '127.0.0.0/24' });
  tokenSets.push(await tokens.issue(session));
}

// The same inputs in every run: a failure can be run again.
let state = 20261121;
const random = (below) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};
const pick = (list) => list[random(list.length)];
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const word = (length) => Array.from({ length }, () => LETTERS[random(64)]).join('');
/** 128 bits in base64url, as our ids are. */
const id = () => word(21) + pick([...'AQgw']);
const digits = (count) => String(random(10 ** count)).padStart(count, '0');
const replaceAt = (text, at, by) => text.slice(0, at) + by + text.slice(at + 1);

const request = (line, headers, body = '') =>
  `${line} HTTP/1.1\r\nHost: bench\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`;
const post = (path, body, headers = '') =>
  request(
    `POST /auth/${path}`,
    `Content-Type: application/json\r\n${headers}`,
    typeof body === 'string' ? body : JSON.stringify(body),
  );
/** A new one each time: whatever is kept by it would be a new key. */
const idempotency = () => pick(['', `Idempotency-Key: ${word(16)}\r\n`]);

const number = () => `98${digits(8)}`;
const PHONES = [
  () => number(),
  () => ` +91${number()}`,
  () => `+91 ${number()}`,
  () => `0091${number()}`,
  () => `0${number()}`,
  () => `+91${number()}\n`,
  () => `+91${number()}0`,
  () => `+91${digits(9)}`,
  () => `+915${digits(9)}`,
  () => `+1201555${digits(4)}`,
  () => `+91${number().replace(/\d/g, (digit) => String.fromCodePoint(0x966 + Number(digit)))}`,
  () => `+91\u200b${number()}`,
  () => `%2B91${number()}`,
  () => Number(`91${number()}`),
  () => [`+91${number()}`],
  () => ({ phoneNumber: `+91${number()}` }),
];
const BODIES = [
  () => `{"${word(12)}":"+91${number()}"}`,
  () => `{"__proto__":{"phoneNumber":"+91${number()}"}}`,
  () => `{"phoneNumber":"+91${number()}","phoneNumber":"${word(8)}","requestId":1,"refreshToken":null}`,
  () => `{"requestId":{"${word(8)}":1},"otpCode":${digits(6)},"refreshToken":[],"phoneNumber":true}`,
];
/** The service closes the connection behind these. */
const NO_OBJECTS = [
  () => `{"phoneNumber":"${word(8)}`,
  () => `["+91${number()}"]`,
  () => `"${word(40)}"`,
  () => `{"phoneNumber":${'['.repeat(40)}"${word(8)}"${']'.repeat(40)}}`,
];
const forged = {
  refresh: [
    () => word(64),
    () => `${id()}.${id()}.${random(100)}.${word(6)}.${word(43)}`,
    () => {
      const { refreshToken } = pick(tokenSets);
      const at = random(refreshToken.length);
      return replaceAt(refreshToken, at, refreshToken[at] === 'A' ? 'B' : 'A');
    },
    () => pick(tokenSets).refreshToken.replace(/\.0\./, `.${1 + random(1_000)}.`),
  ],
  access: [
    () => word(200),
    () => `${word(40)}.${word(120)}.${word(86)}`,
    () => {
      const { accessToken } = pick(tokenSets);
      const at = random(accessToken.length);
      return replaceAt(accessToken, at, accessToken[at] === 'A' ? 'B' : 'A');
    },
  ],
};
const KINDS = [
  () => post('send-otp', { phoneNumber: pick(PHONES)() }, idempotency()),
  () =>
    post(pick(['send-otp', 'verify-otp', 'refresh']), pick(random(8) ? BODIES : NO_OBJECTS)(), idempotency()),
  () => post('verify-otp', { requestId: id() + id(), otpCode: digits(6) }, idempotency()),
  () =>
    post(
      'verify-otp',
      { requestId: pick(requestIds).slice(0, 22) + id(), otpCode: digits(6) },
      idempotency(),
    ),
  () => post('verify-otp', { requestId: pick(requestIds), otpCode: `${digits(5)} ` }, idempotency()),
  () => request(`GET /auth/otp/${id()}${id()}`, ''),
  () => post('refresh', { refreshToken: pick(forged.refresh)() }),
  () => request('GET /auth/me', `Authorization: Bearer ${pick(forged.access)()}\r\n`),
];

const statuses = {};
/** Sends inputs over one connection after another until so many are answered, and counts the answers by status. */
async function send(count) {
  for (let answered = 0; answered < count;) {
    const socket = connect(port, '127.0.0.1').setEncoding('latin1').setNoDelay();
    await once(socket, 'connect');
    const begun = answered;
    let sent = answered;
    const write = () => {
      const batch = Math.min(PIPELINED - (sent - answered), count - sent);
      if (batch < PIPELINED / 2 && sent + batch < count) return;
      sent += batch;
      socket.write(Array.from({ length: batch }, () => pick(KINDS)()).join(''));
    };
    write();
    let rest = '';
    try {
      for await (const chunk of socket) {
        const text = rest + chunk;
        let at = 0;
        for (
          let found;
          (found = text.indexOf('HTTP/1.1 ', at)) >= 0 && found + 12 <= text.length;
          at = found + 12
        ) {
          const status = text.slice(found + 9, found + 12);
          statuses[status] = (statuses[status] ?? 0) + 1;
          answered += 1;
        }
        // A status line may come in two pieces.
        rest = text.slice(Math.max(at, text.length - 11));
        if (answered === count) break;
        write();
      }
    } catch (error) {
      // What was on its way when the service closed is lost.
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') throw error;
    }
    if (answered === begun) throw new Error('A connection was closed without an answer');
  }
}
const sendAll = (count) =>
  Promise.all(
    Array.from({ length: CONNECTIONS }, (_, i) =>
      send(Math.floor((count * (i + 1)) / CONNECTIONS) - Math.floor((count * i) / CONNECTIONS)),
    ),
  );

/** Every key with its content and its milliseconds to live. */
async function snapshot() {
  const names = await client.keys('*');
  const entries = names.map(async (name) => [
    name,
    { content: (await client.dumpBuffer(name))?.toString('base64'), ttl: await client.pttl(name) },
  ]);
  return new Map(await Promise.all(entries));
}
const contents = (keys) => JSON.stringify([...keys].map(([name, { content }]) => [name, content]).sort());
const usedMemory = async () => Number(/used_memory:(\d+)/.exec(await client.info('memory'))[1]);
const isAddressList = (name) => /^otp-login:\{addresses\}:[a-z-]+:address:\d+:\d+$/.test(name);
const addressLists = async () => (await client.keys('*')).filter(isAddressList).sort();
const sizeOf = async (names) => {
  let bytes = 0;
  for (const name of names) bytes += await client.memory('USAGE', name, 'SAMPLES', 0);
  return bytes;
};

// What those people did is written behind their answers: the look that sees nothing new is the first one.
let [before, since] = [await snapshot(), performance.now()];
for (let earlier; earlier === undefined || contents(earlier) !== contents(before);) {
  await sleep(500);
  [earlier, before, since] = [before, await snapshot(), performance.now()];
}
// Once before the memory is looked at: scripts and buffers are not an input's.
await sendAll(Math.min(COUNT, 4_000));
const [memoryBefore, listsBefore] = [await usedMemory(), await sizeOf(await addressLists())];
for (const status of Object.keys(statuses)) delete statuses[status];
const begin = performance.now();
await inSteps('rejected inputs', 10, (step) => sendAll(Math.ceil((COUNT - step) / 10)));
const seconds = (performance.now() - begin) / 1_000;
const lists = await addressLists();
const grown = (await usedMemory()) - memoryBefore - (await sizeOf(lists)) + listsBefore;
// Of each table: its addresses beside the field of the bytes, and the bytes of their timestamps.
const addresses = await Promise.all(lists.map(async (name) => (await client.hlen(name)) - 1));
const bytes = await Promise.all(lists.map(async (name) => Number(await client.hget(name, '#'))));
const after = await snapshot();
const elapsed = performance.now() - since;

const faults = [];
for (const [name, { content, ttl }] of before) {
  if (!after.has(name) && ttl > elapsed) faults.push(`gone: ${name}`);
  if (after.has(name) && after.get(name).content !== content) faults.push(`changed: ${name}`);
}
for (const [name, { ttl }] of after) {
  // -2: it has expired while we looked.
  if (ttl === -1) faults.push(`without a time to live: ${name}`);
  if (!before.has(name) && !isAddressList(name)) faults.push(`new: ${name}`);
}
const unexpected = Object.keys(statuses).filter((status) => !['400', '401', '410'].includes(status));
if (unexpected.length > 0) faults.push(`answered by ${unexpected.join(', ')}`);
if (Math.max(...addresses) > 1) faults.push(`${Math.max(...addresses)} clients were counted`);
if (Math.max(...bytes) > MOST_BYTES) faults.push('the timestamps of an address outgrew their limit');
if (grown > SLACK_BYTES) faults.push('Redis holds more than before');

const kept = [...after.keys()].filter((name) => before.has(name)).length;
console.log(
  `${Object.values(statuses).reduce((sum, count) => sum + count)} rejected inputs ` +
    `(${Object.entries(statuses)
      .map((pair) => pair.join(': '))
      .join(', ')}) in ${seconds.toFixed(0)} s, ` +
    `${Math.round(COUNT / seconds)} a second; Redis: ${before.size} keys before, ${kept} of them after ` +
    `(${before.size - kept} expired), new: ${after.size - kept}, of which tables of addresses: ${lists.length} ` +
    `(timestamps: ${bytes.join(', ')} bytes; at most ${MOST_BYTES}); without a time to live: ` +
    `${[...after.values()].filter(({ ttl }) => ttl === -1).length}; used_memory beside the lists: ${grown} bytes more`,
);
for (const fault of faults.slice(0, 20)) console.log(fault);
process.exit(faults.length === 0 ? 0 : 1);
