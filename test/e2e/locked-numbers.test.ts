import { solveChallenge, type Challenge } from 'altcha-lib';
import { deriveKey } from 'altcha-lib/algorithms/pbkdf2';
import { auditOf, block, unlock, WITH_ADMIN } from '../support/admin';
import { keysOf } from '../support/keys';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

let world: World;
beforeAll(async () => {
  world = await startWorld({
    count: 3,
    variables: {
      ...WITH_ADMIN,
      STARTMESSAGING_CONTRACT: 'caller',
      LIMIT_FAILED_CODES: undefined,
      TEST_NUMBERS: '+910000000001:123456',
    },
  });
});
afterAll(() => world.close());

const send = (phoneNumber: string, more: object = {}, url = world.url): Promise<Answer> =>
  call('POST', `${url}/auth/send-otp`, { phoneNumber, ...more });
const urlOf = (i: number): string => world.instances[i % 3]!.url;

/** A stranger enters wrong codes, three for an SMS. */
async function guess(phoneNumber: string, count: number): Promise<string> {
  let requestId = '';
  for (let i = 0; i < count; i++) {
    if (i % 3 === 0) requestId = (await sendOtp(urlOf(i), phoneNumber)).body.requestId as string;
    const answer = await verifyOtp(urlOf(i), requestId, wrongCode(textedCode(world.upstream, phoneNumber)));
    expect([i, ...statusAndCode(answer)]).toEqual([i, 400, 'otp_incorrect']);
  }
  return requestId;
}

/** As if the wrong codes had been entered earlier. */
async function pass(requestId: string, ms: number): Promise<void> {
  const { failed } = keysOf(requestId);
  const times = (await redisCommand(world, 'LRANGE', failed, '0', '-1')) as string[];
  await redisCommand(world, 'DEL', failed);
  await redisCommand(world, 'RPUSH', failed, ...times.map((time) => String(Number(time) - ms)));
  await redisCommand(world, 'PEXPIRE', failed, '600000');
}

async function solve({ body }: Answer): Promise<string> {
  const challenge = body.challenge as Challenge;
  const solution = await solveChallenge({ challenge, deriveKey });
  return Buffer.from(JSON.stringify({ challenge, solution })).toString('base64');
}

it('after ten wrong codes of strangers a send needs a proof of work, also an hour later, and the owner of a device token sends as before', async () => {
  const phoneNumber = freshNumber();
  const { deviceToken } = (await login(world, phoneNumber)).body;
  const requestId = await guess(phoneNumber, 9);
  expect((await send(phoneNumber)).status).toBe(200);
  await verifyOtp(world.url, requestId, wrongCode(textedCode(world.upstream, phoneNumber)));
  await guess(phoneNumber, 1);
  expect(statusAndCode(await send(phoneNumber))).toEqual([429, 'phone_locked']);
  expect((await send(phoneNumber, { deviceToken }, urlOf(1))).status).toBe(200);

  await pass(requestId, 3_601_000);
  const asked = await send(phoneNumber, {}, urlOf(2));
  expect(statusAndCode(asked)).toEqual([428, 'challenge_required']);
  expect((await send(phoneNumber, { deviceToken }, urlOf(1))).status).toBe(200);
  const altcha = await solve(asked);
  const sent = await send(phoneNumber, { altcha });
  expect(sent.status).toBe(200);
  // A solution is good for one SMS.
  expect(statusAndCode(await send(phoneNumber, { altcha }))).toEqual([428, 'challenge_required']);
  const verified = await verifyOtp(world.url, sent.body.requestId, textedCode(world.upstream, phoneNumber));
  expect(verified.status).toBe(200);
});

it('an operator unlocks a number three times in 30 days, and its owner logs in without a device token', async () => {
  const phoneNumber = freshNumber();
  await guess(phoneNumber, 10);
  for (let i = 0; i < 3; i++) {
    expect(statusAndCode(await send(phoneNumber, {}, urlOf(i)))).toEqual([429, 'phone_locked']);
    expect((await unlock(urlOf(i), phoneNumber)).status).toBe(204);
    expect((await login(world, phoneNumber, urlOf(i + 1))).status).toBe(200);
    await guess(phoneNumber, 10);
  }
  const refused = await unlock(world.url, phoneNumber);
  expect(statusAndCode(refused)).toEqual([429, 'rate_limited']);
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(29 * 86_400);
  expect(statusAndCode(await send(phoneNumber))).toEqual([429, 'phone_locked']);
  expect((await unlock(world.url, freshNumber())).status).toBe(204);
});

it('an unlock is in the audit with its operator, the pseudonym of the number and its outcome', async () => {
  const [instance] = world.instances;
  const before = auditOf(instance!).length;
  const phoneNumber = freshNumber();
  for (let i = 0; i < 4; i++) await unlock(world.url, phoneNumber);
  const lines = auditOf(instance!)
    .slice(before)
    .filter(({ audit }) => audit === 'admin.unlock');
  expect(lines.map(({ outcome }) => outcome)).toEqual([
    ...Array.from({ length: 3 }, () => ['begun', 'done']).flat(),
    'begun',
    'failed',
  ]);
  for (const { admin, phone } of lines)
    expect([admin, phone]).toEqual(['ops', expect.stringMatching(/^[\w-]{22}$/)]);
  expect(JSON.stringify(lines)).not.toContain(phoneNumber.slice(3));
});

it('an unlock does not let a blocked number in', async () => {
  const phoneNumber = freshNumber();
  await block(world.url, phoneNumber);
  expect((await unlock(world.url, phoneNumber)).status).toBe(204);
  expect(statusAndCode(await send(phoneNumber))).toEqual([400, 'phone_number_rejected']);
});

it.each([{}, { phoneNumber: null }, { phoneNumber: '9876543210' }, { phoneNumber: ['+919876543210'] }, []])(
  'an unlock with the body %j is refused',
  async (body) => {
    const answer = await call('POST', `${world.url}/admin/numbers/unlock`, body, {
      authorization: `Bearer ${String(WITH_ADMIN.ADMIN_TOKENS).slice(4)}`,
    });
    expect(statusAndCode(answer)).toEqual([400, 'validation_failed']);
  },
);

it('an unlock needs a token of an operator', async () => {
  const answer = await call('POST', `${world.url}/admin/numbers/unlock`, { phoneNumber: freshNumber() });
  expect(statusAndCode(answer)).toEqual([401, 'unauthenticated']);
});

it('a test number is unlocked like any other number, and needs no proof of work', async () => {
  const phoneNumber = '+910000000001';
  const { requestId } = (await send(phoneNumber)).body;
  for (let round = 0; round < 4; round++) {
    const again = (await send(phoneNumber)).body.requestId ?? requestId;
    for (let i = 0; i < 3; i++) await verifyOtp(world.url, again, '654321');
  }
  expect(statusAndCode(await send(phoneNumber))).toEqual([429, 'phone_locked']);
  await pass(requestId as string, 3_601_000);
  expect((await send(phoneNumber)).status).toBe(200);
  expect((await unlock(world.url, phoneNumber)).status).toBe(204);
  expect((await send(phoneNumber)).status).toBe(200);
});
