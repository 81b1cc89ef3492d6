import { rmSync } from 'node:fs';
import { as, signingKeys } from '../support/crowd';
import {
  anotherInstance,
  call,
  freshNumber,
  login,
  SECRET as OLD,
  sendOtp,
  startWorld,
  statusAndCode,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type World,
} from '../support/world';

const NEW = 'rotated-secret-0123456789-abcdefghij';
const INTROSPECTOR = 'api:introspection-secret-0123456789abcdef';
const BASIC = { authorization: `Basic ${Buffer.from(INTROSPECTOR).toString('base64')}` };

/** The replicas of a rotation, in the order in which it goes. */
const GENERATIONS = { old: [OLD], appended: [OLD, NEW], moved: [NEW, OLD], dropped: [NEW] };
type Generation = keyof typeof GENERATIONS;
const ALL = Object.keys(GENERATIONS) as Generation[];
const HOLD_OLD: Generation[] = ['old', 'appended', 'moved'];
/** Whether a replica holds the secret by which another one signs. */
const holds = (replica: Generation, signer: Generation): boolean =>
  GENERATIONS[replica].includes(GENERATIONS[signer][0] ?? '');

const JWT_KEYS_DIR = signingKeys();
afterAll(() => {
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

const refresh = (refreshToken: unknown, url: string): Promise<Answer> =>
  call('POST', `${url}/auth/refresh`, { refreshToken });
const bearer = ({ body }: Answer): Record<string, string> => as(body.accessToken);
const me = (answer: Answer, url: string): Promise<Answer> =>
  call('GET', `${url}/auth/me`, undefined, bearer(answer));
const form = (url: string, path: string, fields: Record<string, string>): Promise<Answer> =>
  call('POST', `${url}/oauth/${path}`, new URLSearchParams(fields).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
    ...BASIC,
  });
const PAIRS = ALL.flatMap((one) => ALL.map((two): [Generation, Generation] => [one, two]));

describe.each(['caller', 'provider'] as const)('a rotation of SECRET under the %s contract', (contract) => {
  let world: World;
  let at: Record<Generation, string>;
  const replicas: Instance[] = [];

  beforeAll(async () => {
    const variables = {
      STARTMESSAGING_CONTRACT: contract,
      JWT_KEYS_DIR,
      INTROSPECTION_CLIENTS: INTROSPECTOR,
    };
    world = await startWorld({ variables, count: 0 });
    at = { old: '', appended: '', moved: '', dropped: '' };
    for (const generation of ALL) {
      const SECRET = GENERATIONS[generation].join(',');
      const replica = await anotherInstance(world, { ...variables, SECRET });
      replicas.push(replica);
      at[generation] = replica.url;
    }
  });
  afterAll(async () => {
    await Promise.all(replicas.map((replica) => replica.close()));
    await world.close();
  });
  afterEach(() => {
    const lines = replicas.flatMap(({ logs }) => logs).filter((line) => !line.includes('"msg":"probe"'));
    const failures = lines.filter((line) => /"status":5\d\d/.test(line));
    expect(failures).toEqual([]);
  });

  it.each(PAIRS)(
    'a code that the replica %s sent is verified by the replica %s if that holds its secret',
    async (sender, verifier) => {
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(at[sender], phoneNumber);
      const code = textedCode(world.upstream, phoneNumber);
      const wrong = await verifyOtp(at[verifier], body.requestId, wrongCode(code));
      const right = await verifyOtp(at[verifier], body.requestId, code);
      if (holds(verifier, sender)) {
        expect([...statusAndCode(wrong), wrong.body.attemptsLeft]).toEqual([400, 'otp_incorrect', 2]);
        expect([right.status, right.body.user?.phoneNumber]).toEqual([200, phoneNumber]);
      } else {
        expect([statusAndCode(wrong), statusAndCode(right)]).toEqual([
          [410, 'otp_expired'],
          [410, 'otp_expired'],
        ]);
        // The person asks for another one here and is in.
        expect((await login(world, phoneNumber, at[verifier])).status).toBe(200);
      }
    },
  );

  it('a verification repeated under its Idempotency-Key finds its session at a replica of another generation', async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(at.appended, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    const verify = (replica: Generation): Promise<Answer> =>
      verifyOtp(at[replica], body.requestId, code, { 'idempotency-key': 'one-and-the-same' });
    const first = await verify('appended');
    for (const replica of HOLD_OLD) {
      const again = await verify(replica);
      expect([again.status, again.body.refreshToken]).toEqual([200, first.body.refreshToken]);
    }
    expect(statusAndCode(await verify('dropped'))).toEqual([410, 'otp_expired']);
    expect((await verify('moved')).body.refreshToken).toBe(first.body.refreshToken);
  });

  it('a code that was sent again by a replica of the next generation works where its secret is held and is a 410 elsewhere', async () => {
    const phoneNumber = freshNumber();
    await sendOtp(at.appended, phoneNumber);
    const firstCode = textedCode(world.upstream, phoneNumber);
    const { body } = await sendOtp(at.moved, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    // Under `caller` the same code again; its challenge is sealed by the new secret, and the code made by the old one.
    if (contract === 'caller') {
      expect(code).toBe(firstCode);
      expect(statusAndCode(await verifyOtp(at.dropped, body.requestId, code))).toEqual([410, 'otp_expired']);
    }
    expect((await verifyOtp(at.moved, body.requestId, code)).status).toBe(200);
  });

  // Sessions know nothing of the contract.
  if (contract === 'provider') return;

  it.each(PAIRS)(
    'a session that the replica %s opened goes on at the replica %s if that holds its secret',
    async (opener, other) => {
      const first = await login(world, freshNumber(), at[opener]);
      expect(first.status).toBe(200);
      const { refreshToken } = first.body;
      if (!holds(other, opener)) {
        expect(statusAndCode(await refresh(refreshToken, at[other]))).toEqual([401, 'refresh_token_invalid']);
        expect(statusAndCode(await me(first, at[other]))).toEqual([401, 'session_expired']);
        // It was not harmed: where its secret is held it goes on.
        expect((await refresh(refreshToken, at[opener])).status).toBe(200);
        return;
      }
      expect((await me(first, at[other])).body).toMatchObject(first.body.user);
      const next = await refresh(refreshToken, at[other]);
      expect(next.status).toBe(200);
      // The session keeps the key that it was opened under, whoever refreshes it.
      const keyOf = (token: unknown): string | undefined => String(token).split('.')[3];
      expect(keyOf(next.body.refreshToken)).toBe(keyOf(refreshToken));
      expect((await refresh(next.body.refreshToken, at[opener])).status).toBe(200);
    },
  );

  it('a refresh token is replaced by the same token, byte for byte, at every replica that holds the secret', async () => {
    const first = await login(world, freshNumber(), at.old);
    let token = first.body.refreshToken as string;
    for (let step = 0; step < 3; step++) {
      const order = [...HOLD_OLD.slice(step % 3), ...HOLD_OLD.slice(0, step % 3)];
      const successors: string[] = [];
      for (const replica of order) {
        const answer = await refresh(token, at[replica]);
        expect([replica, answer.status]).toEqual([replica, 200]);
        successors.push(answer.body.refreshToken as string);
      }
      expect(new Set(successors).size).toBe(1);
      expect(successors[0]).not.toBe(token);
      token = successors[0] ?? '';
    }
    const racing = await Promise.all(
      Array.from({ length: 24 }, (_, i) => refresh(token, at[HOLD_OLD[i % 3] ?? 'old'])),
    );
    expect(new Set(racing.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(racing.map(({ body }) => body.refreshToken as string)).size).toBe(1);
  });

  it('the reuse of a stolen refresh token is detected at a replica of another generation', async () => {
    const first = await login(world, freshNumber(), at.old);
    const second = await refresh(first.body.refreshToken, at.moved);
    await refresh(second.body.refreshToken, at.appended);
    expect(statusAndCode(await refresh(first.body.refreshToken, at.moved))).toEqual([
      401,
      'refresh_token_reused',
    ]);
    for (const replica of HOLD_OLD)
      expect(statusAndCode(await me(first, at[replica]))).toEqual([401, 'session_revoked']);
  });

  it('a replica without the old secret refuses its sessions at every endpoint and answers with no 5xx', async () => {
    const phoneNumber = freshNumber();
    const [first, second] = [
      await login(world, phoneNumber, at.old),
      await login(world, phoneNumber, at.appended),
    ];
    const url = at.dropped;
    for (const answer of [first, second]) {
      const { refreshToken, accessToken } = answer.body as { refreshToken: string; accessToken: string };
      expect(statusAndCode(await refresh(refreshToken, url))).toEqual([401, 'refresh_token_invalid']);
      const cookie = await call(
        'POST',
        `${url}/auth/refresh`,
        {},
        { cookie: `__Host-refresh=${refreshToken}`, origin: 'http://localhost:3000' },
      );
      expect(statusAndCode(cookie)).toEqual([401, 'refresh_token_invalid']);
      expect(cookie.headers.getSetCookie()[0]).toMatch(/^__Host-refresh=; .*Max-Age=0/);
      for (const [method, path] of [
        ['GET', '/auth/me'],
        ['GET', '/auth/sessions'],
        ['DELETE', '/auth/sessions'],
        ['DELETE', '/auth/sessions/AAAAAAAAAAAAAAAAAAAAAA'],
      ] as const)
        expect([path, ...statusAndCode(await call(method, url + path, undefined, bearer(answer)))]).toEqual([
          path,
          401,
          'session_expired',
        ]);
      const token = await form(url, 'token', { grant_type: 'refresh_token', refresh_token: refreshToken });
      expect([token.status, token.body.error]).toEqual([400, 'invalid_grant']);
      for (const each of [refreshToken, accessToken]) {
        expect((await form(url, 'introspect', { token: each })).body).toEqual({ active: false });
        expect((await form(url, 'revoke', { token: each })).status).toBe(200);
      }
      expect((await call('POST', `${url}/auth/logout`, { refreshToken })).status).toBe(204);
    }
    // The same person logs in again, and the dead sessions are in nobody's way.
    const again = await login(world, phoneNumber, url);
    expect(again.body.user).toEqual(first.body.user);
    expect((await refresh(again.body.refreshToken, url)).status).toBe(200);
    expect((await call('DELETE', `${url}/auth/sessions?others=true`, undefined, bearer(again))).status).toBe(
      204,
    );
    expect(statusAndCode(await refresh(first.body.refreshToken, at.old))).toEqual([401, 'session_revoked']);
  });

  it('a user keeps the same id at replicas of all generations', async () => {
    const phoneNumber = freshNumber();
    const subjects = new Set<string>();
    for (const replica of ALL) {
      const { body } = await login(world, phoneNumber, at[replica]);
      subjects.add(body.user.id as string);
    }
    expect(subjects.size).toBe(1);
    const { body } = await login(world, freshNumber(), at.dropped);
    expect(subjects).not.toContain(body.user.id);
  });
});
