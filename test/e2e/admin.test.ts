import { createHash } from 'node:crypto';
import { ADMIN_TOKEN, asAdmin, auditOf, flushLedger, usageOf, WITH_ADMIN } from '../support/admin';
import {
  call,
  freshNumber,
  login,
  redisCommand,
  sendOtp,
  startInstance,
  startWorld,
  statusAndCode,
  textedCode,
  until,
  verifyOtp,
  wrongCode,
  type Answer,
  type Instance,
  type Variables,
  type World,
} from '../support/world';

const HASHED = 'hashed-token-0123456789-abcdefghij';
const TOKENS: Variables = {
  ADMIN_TOKENS: `ops:${ADMIN_TOKEN},night.shift:sha256:${createHash('sha256').update(HASHED).digest('hex')}`,
};
const ROUTES = [
  ['GET', '/admin/usage'],
  ['GET', '/admin/abuse'],
  ['GET', '/admin/address'],
  ['POST', '/admin/numbers/block'],
  ['POST', '/admin/numbers/unblock'],
  ['POST', '/admin/numbers/unlock'],
] as const;

const bearer = (token: unknown): Record<string, string> => ({ authorization: `Bearer ${String(token)}` });
const bodyOf = (method: string): object | undefined =>
  method === 'POST' ? { phoneNumber: freshNumber() } : undefined;

let world: World;
const extra: Instance[] = [];
beforeAll(async () => {
  world = await startWorld({ variables: TOKENS });
});
afterAll(async () => {
  await Promise.all(extra.map((instance) => instance.close()));
  await world.close();
});

/** One more instance over the same Redis, until the end of the file. */
async function another(variables: Variables): Promise<Instance> {
  const instance = await startInstance({
    REDIS_URL: world.redis.url,
    STARTMESSAGING_BASE_URL: world.upstream.url,
    ...variables,
  });
  extra.push(instance);
  return instance;
}

describe('without ADMIN_TOKENS', () => {
  let without: Instance;
  beforeAll(async () => {
    without = await another({});
  });

  it('the service answers each route of /admin as an unknown route without ADMIN_TOKENS', async () => {
    const { url, logs } = without;
    const nowhere = await call('GET', `${url}/admin/nowhere`);
    for (const [method, path] of ROUTES) {
      for (const headers of [{}, bearer(ADMIN_TOKEN), bearer('undefined'), bearer('')]) {
        const answer = await call(method, url + path, bodyOf(method), headers);
        expect([path, ...statusAndCode(answer)]).toEqual([path, 404, 'not_found']);
        expect(answer.body).toEqual(nowhere.body);
        expect(answer.headers.get('www-authenticate')).toBeNull();
      }
    }
    expect(logs.join('')).not.toContain('"audit":"admin');
  });

  it.each<[string, string, string, unknown, Record<string, string>]>([
    ['a wrong method at /admin', 'DELETE', '/admin/usage', undefined, {}],
    ['a wrong method with a body at /admin', 'POST', '/admin/abuse', {}, {}],
    ['a GET of a route for POST at /admin', 'GET', '/admin/numbers/block', undefined, {}],
    [
      'half a body at /admin',
      'POST',
      '/admin/numbers/block',
      '{"phone',
      { 'content-type': 'application/json' },
    ],
    [
      'a body of another type at /admin',
      'POST',
      '/admin/numbers/block',
      'x=y',
      { 'content-type': 'text/plain' },
    ],
    ['an invalid body at /admin', 'POST', '/admin/numbers/block', { phoneNumber: 7 }, {}],
    ['an invalid query at /admin', 'GET', '/admin/usage?from=never', undefined, {}],
  ])(
    'the service answers %s as on an unknown route without ADMIN_TOKENS',
    async (_, method, path, body, headers) => {
      const { url } = without;
      const answer = await call(method, url + path, body, headers);
      const nowhere = await call(method, `${url}/nowhere`, body, headers);
      expect(statusAndCode(answer)).toEqual(statusAndCode(nowhere));
      expect(answer.headers.get('allow')).toBeNull();
    },
  );
});

describe('the token of an operator', () => {
  it.each<[string, Record<string, string>]>([
    ['no token', {}],
    ['an empty token', { authorization: 'Bearer ' }],
    ['garbage', bearer('garbage')],
    ['another token', bearer('x'.repeat(ADMIN_TOKEN.length))],
    ['a token that is one character longer', bearer(`${ADMIN_TOKEN}g`)],
    ['a token that is one character shorter', bearer(ADMIN_TOKEN.slice(0, -1))],
    ['a token in capitals', bearer(ADMIN_TOKEN.toUpperCase())],
    ['the name and the token', bearer(`ops:${ADMIN_TOKEN}`)],
    ['the hash in place of the token', bearer(createHash('sha256').update(HASHED).digest('hex'))],
    ['the hash as it is configured', bearer(`sha256:${createHash('sha256').update(HASHED).digest('hex')}`)],
    [
      'the token in Basic',
      { authorization: `Basic ${Buffer.from(`ops:${ADMIN_TOKEN}`).toString('base64')}` },
    ],
    ['the token without a scheme', { authorization: ADMIN_TOKEN }],
    ['two tokens', { authorization: `Bearer ${ADMIN_TOKEN} ${ADMIN_TOKEN}` }],
    ['10 KB', bearer('x'.repeat(10_000))],
  ])('each route of /admin refuses a request with %s', async (_, headers) => {
    for (const [method, path] of ROUTES) {
      const answer = await call(method, world.url + path, bodyOf(method), headers);
      expect([path, ...statusAndCode(answer)]).toEqual([path, 401, 'unauthenticated']);
      // RFC 6750 section 3: an error is named only where something was sent.
      const challenge = 'authorization' in headers ? 'Bearer error="invalid_token"' : 'Bearer';
      expect(answer.headers.get('www-authenticate')).toBe(challenge);
      expect(answer.headers.get('cache-control')).toBe('no-store');
    }
  });

  it('each route of /admin refuses the token of an operator in the URL, the body or a cookie', async () => {
    const { url } = world;
    for (const answer of [
      await call('GET', `${url}/admin/usage?access_token=${ADMIN_TOKEN}&token=${ADMIN_TOKEN}`),
      await call('POST', `${url}/admin/numbers/block`, { ...bodyOf('POST'), token: ADMIN_TOKEN }),
      await call('GET', `${url}/admin/usage`, undefined, { cookie: `token=${ADMIN_TOKEN}` }),
    ])
      expect(statusAndCode(answer)).toEqual([401, 'unauthenticated']);
  });

  it('each route of /admin refuses the tokens of a user, and /auth/me refuses the token of an operator', async () => {
    const { body } = await login(world);
    for (const token of [body.accessToken, body.refreshToken, body.deviceToken])
      for (const [method, path] of ROUTES)
        expect(statusAndCode(await call(method, world.url + path, bodyOf(method), bearer(token)))).toEqual([
          401,
          'unauthenticated',
        ]);
    // Nor the other way round.
    expect(statusAndCode(await asAdmin('GET', `${world.url}/auth/me`))).toEqual([401, 'unauthenticated']);
  });

  it.each([
    ['plain', 'ops', ADMIN_TOKEN],
    ['hashed', 'night.shift', HASHED],
  ])(
    'each route of /admin accepts a token that is configured %s, and its audit names the operator',
    async (_, name, token) => {
      for (const [method, path] of ROUTES) {
        const answer = await call(method, world.url + path, bodyOf(method), bearer(token));
        expect([path, answer.status]).toEqual([path, method === 'POST' ? 204 : 200]);
        expect(answer.headers.get('cache-control')).toBe('no-store');
        expect(auditOf(world.instances[0]!).at(-1)).toMatchObject({ admin: name, outcome: 'done' });
      }
      // RFC 7235 section 2.1: the scheme's case does not matter.
      const headers = { authorization: `bearer ${token}` };
      expect((await call('GET', `${world.url}/admin/abuse`, undefined, headers)).status).toBe(200);
    },
  );
});

describe('the audit', () => {
  it.each(['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'])(
    'the audit has each call of /admin at LOG_LEVEL=%s, refused calls too, and no token',
    async (level) => {
      const instance = await another({ ...TOKENS, LOG_LEVEL: level });
      for (const [method, path] of ROUTES) {
        await call(method, instance.url + path, bodyOf(method), bearer(HASHED));
        await call(
          method,
          instance.url + path,
          bodyOf(method),
          bearer('wrong-token-0123456789-abcdefghijkl'),
        );
      }
      await call('GET', `${instance.url}/admin/usage?from=2026-02-31`, undefined, bearer(ADMIN_TOKEN));
      const lines = auditOf(instance).map((line) => {
        const { audit, outcome, admin, method, route } = line as Record<string, string | undefined>;
        return `${audit} ${admin ?? `${method} ${route}`} ${outcome}`;
      });
      expect(lines).toEqual([
        ...['usage', 'abuse', 'address', 'block', 'unblock', 'unlock'].flatMap((action, i) => [
          'admin.called night.shift undefined',
          ...(action.endsWith('lock') ? [`admin.${action} night.shift begun`] : []),
          `admin.${action} night.shift done`,
          `admin.refused ${ROUTES[i]!.join(' ')} undefined`,
        ]),
        'admin.called ops undefined',
        'admin.usage ops failed',
      ]);
      for (const line of auditOf(instance))
        expect(line).toMatchObject({
          level: 'info',
          time: expect.any(String) as string,
          requestId: expect.any(String) as string,
        });
      const logs = instance.logs.join('');
      for (const secret of [HASHED, ADMIN_TOKEN, 'wrong-token']) expect(logs).not.toContain(secret);
      // Other lines keep to LOG_LEVEL.
      if (['silent', 'fatal', 'error', 'warn'].includes(level)) expect(logs).not.toContain('"msg":"request"');
    },
  );

  it('the audit has invalid calls of /admin, too', async () => {
    const [instance] = world.instances as [Instance];
    for (const [method, path, body] of [
      ['GET', '/admin/usage?from=yesterday', undefined],
      ['POST', '/admin/numbers/block', { phoneNumber: 'x' }],
      ['POST', '/admin/numbers/unblock', {}],
      ['POST', '/admin/numbers/unlock', { phoneNumber: '+91' }],
    ] as const) {
      const before = auditOf(instance).length;
      expect(statusAndCode(await asAdmin(method, instance.url + path, body))).toEqual([
        400,
        'validation_failed',
      ]);
      expect([path, auditOf(instance).length > before]).toEqual([path, true]);
      expect(auditOf(instance).at(-1)).toMatchObject({ admin: 'ops' });
    }
  });

  it('no other line of the log repeats the audit of its request', async () => {
    const instance = await another(TOKENS);
    await asAdmin('POST', `${instance.url}/admin/numbers/block`, {
      phoneNumber: freshNumber(),
      reason: 'DoT order 4711',
    });
    await call('GET', `${instance.url}/admin/usage`);
    const others = instance.logs.filter((line) => !line.includes('"msg":"audit"'));
    expect(others.filter((line) => line.includes('"msg":"request"'))).toHaveLength(2);
    for (const line of others) expect(line).not.toMatch(/"audit"|"admin"|"outcome"|DoT order/);
  });
});

describe('GET /admin/address', () => {
  const address = async (url: string, headers: Record<string, string> = {}): Promise<Answer> =>
    call('GET', `${url}/admin/address`, undefined, { ...bearer(ADMIN_TOKEN), ...headers });

  it('GET /admin/address answers the address of its caller as the limits see it', async () => {
    const { status, body } = await address(world.url);
    expect([status, body]).toEqual([200, { peer: '127.0.0.1', forwarded: null, address: '127.0.0.1' }]);
  });

  it('GET /admin/address answers an X-Forwarded-For that is not trusted, and uses the address of the connection', async () => {
    const { body } = await address(world.url, { 'x-forwarded-for': '203.0.113.9' });
    expect(body).toEqual({ peer: '127.0.0.1', forwarded: '203.0.113.9', address: '127.0.0.1' });
  });

  it('GET /admin/address answers the address that a trusted proxy names', async () => {
    const { url } = await another({ ...TOKENS, TRUSTED_PROXIES: '127.0.0.1,10.0.0.0/8' });
    const { body } = await address(url, { 'x-forwarded-for': '198.51.100.1, 203.0.113.9, 10.0.1.2' });
    expect(body).toEqual({
      peer: '127.0.0.1',
      forwarded: '198.51.100.1, 203.0.113.9, 10.0.1.2',
      address: '203.0.113.9',
    });
  });

  it('GET /admin/address answers at most 500 characters of X-Forwarded-For, and logs none of them', async () => {
    const [instance] = world.instances as [Instance];
    const { body } = await address(instance.url, { 'x-forwarded-for': `canary${'x'.repeat(5_000)}` });
    expect(body.forwarded).toBe(`canary${'x'.repeat(494)}`);
    expect(instance.logs.join('')).not.toContain('canary');
  });
});

describe('GET /admin/usage', () => {
  const NOTHING = {
    sent: 0,
    refunded: 0,
    verified: 0,
    delivered: 0,
    failed: 0,
    unknown: 0,
    costPaise: 0,
  };
  const inKolkata = (ms: number): string => new Date(ms + 19_800_000).toISOString();
  const dayOf = (ms: number): string => inKolkata(ms).slice(0, 10);
  const usage = (query = '', url = world.url): Promise<Answer> =>
    asAdmin('GET', `${url}/admin/usage${query}`);

  describe('of what was sent', () => {
    let used: World;
    beforeAll(async () => {
      used = await startWorld({ variables: { ...WITH_ADMIN, STARTMESSAGING_CONTRACT: 'caller' } });
    });
    beforeEach(async () => {
      used.upstream.reset();
      await flushLedger(used);
      await redisCommand(used, 'FLUSHDB');
    });
    afterAll(() => used.close());

    it('GET /admin/usage counts what was sent, refunded, unknown and verified, and the cost', async () => {
      const started = Date.now();
      await login(used);
      await login(used);
      const numbers = [freshNumber(), freshNumber(), freshNumber()] as const;
      const { body } = await sendOtp(used.url, numbers[0]);
      await verifyOtp(used.url, body.requestId, wrongCode(textedCode(used.upstream, numbers[0])));
      // Upstream certainly did not accept this one, and may have accepted that one.
      used.upstream.fault({
        on: 'send',
        fault: { kind: 'error', status: 402, code: 'INSUFFICIENT_BALANCE' },
      });
      expect(statusAndCode(await sendOtp(used.url, numbers[1]))).toEqual([503, 'sms_unavailable']);
      used.upstream.fault({ on: 'send', times: 0, phoneNumber: numbers[2], fault: { kind: 'reset' } });
      const unknown = await sendOtp(used.url, numbers[2]);
      expect(unknown.body.delivery).toBe('unknown');

      const expected = { ...NOTHING, sent: 5, refunded: 1, unknown: 1, verified: 2, costPaise: 100 };
      expect(await usageOf(used)).toEqual(expected);
      // Its code works if it arrived.
      expect(
        (await verifyOtp(used.url, unknown.body.requestId, textedCode(used.upstream, numbers[2]))).status,
      ).toBe(200);
      expect(await usageOf(used)).toEqual({ ...expected, verified: 3 });

      // All of it lies in the hour of Asia/Kolkata in which it was sent; if that ended meanwhile, in two.
      const { body: answer } = await usage('', used.url);
      const hours = (answer.days as { date: string; hours: { from: string; sent: number }[] }[]).flatMap(
        (day) => day.hours.map((hour) => ({ ...hour, date: day.date })),
      );
      const possible = [started, Date.now()].map((ms) => `${inKolkata(ms).slice(0, 13)}:00:00+05:30`);
      for (const { from, date } of hours) {
        expect(possible).toContain(from);
        expect(from.slice(0, 10)).toBe(date);
      }
      expect(hours.reduce((sum, { sent }) => sum + sent, 0)).toBe(5);
      expect(answer.days.at(-1)).toMatchObject({ date: dayOf(Date.now()) });
    });

    it('GET /admin/usage counts the sends of all instances, each at its price', async () => {
      const second = await startInstance({
        ...WITH_ADMIN,
        REDIS_URL: used.redis.url,
        STARTMESSAGING_BASE_URL: used.upstream.url,
        SMS_PRICE_PAISE: '31',
      });
      try {
        await sendOtp(used.url, freshNumber());
        await sendOtp(second.url, freshNumber());
        expect(await usageOf(used)).toMatchObject({ sent: 2, costPaise: 56 });
      } finally {
        await second.close();
      }
    });

    it('GET /admin/usage counts no invalid request, no wrong code and no repeat under an Idempotency-Key', async () => {
      const phoneNumber = freshNumber();
      const headers = { 'idempotency-key': 'one-and-the-same' };
      const { body } = await sendOtp(used.url, phoneNumber, headers);
      await sendOtp(used.url, phoneNumber, headers);
      const code = textedCode(used.upstream, phoneNumber);
      await verifyOtp(used.url, body.requestId, wrongCode(code));
      for (let i = 0; i < 2; i++)
        expect((await verifyOtp(used.url, body.requestId, code, headers)).status).toBe(200);
      await sendOtp(used.url, 'no number');
      expect(await usageOf(used)).toEqual({ ...NOTHING, sent: 1, verified: 1, costPaise: 25 });
    });

    it('GET /admin/usage counts the deliveries whose status was asked for', async () => {
      used.upstream.settings.sentAfterMs = 600_000;
      const { body } = await sendOtp(used.url, freshNumber());
      used.upstream.fault({ on: 'send', fault: 'not-delivered' });
      const { body: failed } = await sendOtp(used.url, freshNumber());
      used.upstream.settings.sentAfterMs = 0;
      used.upstream.settings.deliveredAfterMs = 0;
      for (const { requestId } of [body, failed]) await call('GET', `${used.url}/auth/otp/${requestId}`);
      await until(async () => {
        const { delivered, failed: lost } = await usageOf(used);
        return delivered === 1 && lost === 1;
      }, 'both deliveries in the usage');
      expect(await usageOf(used)).toEqual({ ...NOTHING, sent: 2, delivered: 1, failed: 1, costPaise: 50 });
    });
  });

  it('GET /admin/usage answers the last seven days by default', async () => {
    const before = Date.now();
    const { status, body } = await usage();
    expect(status).toBe(200);
    const to = body.to as string;
    expect([dayOf(before), dayOf(Date.now())]).toContain(to);
    const days = Array.from({ length: 7 }, (_, i) =>
      new Date(Date.parse(to) - (6 - i) * 86_400_000).toISOString().slice(0, 10),
    );
    expect(body).toMatchObject({ timeZone: 'Asia/Kolkata', from: days[0], to });
    expect((body.days as { date: string }[]).map(({ date }) => date)).toEqual(days);
  });

  it('GET /admin/usage answers each day of the range, days without any SMS, too', async () => {
    const { body } = await usage('?from=2024-02-27&to=2024-03-02');
    expect(body).toEqual({
      timeZone: 'Asia/Kolkata',
      from: '2024-02-27',
      to: '2024-03-02',
      // These worlds do not read the wallet.
      wallet: { balancePaise: null, source: 'ledger', hoursLeft: null },
      total: NOTHING,
      days: ['2024-02-27', '2024-02-28', '2024-02-29', '2024-03-01', '2024-03-02'].map((date) => ({
        date,
        ...NOTHING,
        hours: [],
      })),
    });
    expect((await usage('?from=2024-02-29&to=2024-02-29')).body.days).toHaveLength(1);
    expect((await usage('?to=2024-03-01')).body).toMatchObject({ from: '2024-02-24', to: '2024-03-01' });
  });

  it('GET /admin/usage refuses more than 92 days', async () => {
    expect((await usage('?from=2026-01-01&to=2026-04-02')).body.days).toHaveLength(92);
    const tooMany = await usage('?from=2026-01-01&to=2026-04-03');
    expect(statusAndCode(tooMany)).toEqual([400, 'validation_failed']);
    expect(tooMany.body.errors).toEqual([expect.objectContaining({ field: 'from' })]);
    expect(statusAndCode(await usage('?from=2000-01-01'))).toEqual([400, 'validation_failed']);
    expect(statusAndCode(await usage('?from=2000-01-01&to=2999-12-31'))).toEqual([400, 'validation_failed']);
  });

  it.each([
    ['from', 'from=2026-02-31'],
    ['from', 'from=2026-02-29&to=2026-03-01'],
    ['from', 'from=2026-13-01'],
    ['from', 'from=2026-1-1'],
    ['from', 'from='],
    ['from', 'from=yesterday'],
    ['from', 'from=2026-01-01T00:00:00Z'],
    ['from', 'from=2026-01-01%0A'],
    ['from', 'from=%D9%A2%D9%A0%D9%A2%D9%A6-01-01'],
    ['from', 'from=2026-01-01&from=2026-01-02'],
    ['from', 'from=1970-01-01'],
    ['from', 'from=2026-01-02&to=2026-01-01'],
    ['from', 'from=2999-01-01'],
    ['to', 'to=2026-02-31'],
    ['to', 'to=2026-00-10'],
    ['to', 'from=2026-01-01&to=2026-01-32'],
    ['to', 'to=tomorrow'],
    ['to', 'to='],
    ['to', 'to=-2026-01-01'],
    ['to', 'to=2026-01-01&to=2026-01-02'],
  ])('GET /admin/usage names the parameter %s as invalid in ?%s', async (field, query) => {
    const answer = await usage(`?${query}`);
    expect(statusAndCode(answer)).toEqual([400, 'validation_failed']);
    expect((answer.body.errors as { field: string }[]).map((error) => error.field)).toEqual([field]);
  });
});

describe('GET /admin/abuse', () => {
  const FIGURES = { sent: 0, verified: 0, wrong: 0, right: 0, challenged: 0, passed: 0 };

  it('GET /admin/abuse answers the figures of the whole service, and no raised step', async () => {
    const quiet = await startWorld({ variables: WITH_ADMIN });
    try {
      const abuse = (): Promise<Answer> => asAdmin('GET', `${quiet.url}/admin/abuse`);
      const nothing = {
        now: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string,
        modes: { conversion: 'observe', wrongCodes: 'enforce' },
        raised: [],
        service: [
          { minutes: 15, figures: FIGURES },
          { minutes: 1_440, figures: FIGURES },
        ],
        decisions: [],
      };
      expect((await abuse()).body).toEqual(nothing);

      await login(quiet);
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(quiet.url, phoneNumber);
      const code = wrongCode(textedCode(quiet.upstream, phoneNumber));
      // Counted once for its number.
      for (let i = 0; i < 3; i++) await verifyOtp(quiet.url, body.requestId, code);
      await flushLedger(quiet);
      const figures = { ...FIGURES, wrong: 1, right: 1 };
      expect((await abuse()).body).toEqual({
        ...nothing,
        service: [
          { minutes: 15, figures },
          { minutes: 1_440, figures },
        ],
      });
    } finally {
      await quiet.close();
    }
  });

  it('GET /admin/abuse answers the configured modes', async () => {
    const { url } = await another({ ...TOKENS, ABUSE_CONVERSION: 'enforce', ABUSE_WRONG_CODES: 'off' });
    const { body } = await asAdmin('GET', `${url}/admin/abuse`);
    expect(body.modes).toEqual({ conversion: 'enforce', wrongCodes: 'off' });
  });
});

it('GET /admin/usage answers 503 while Redis hangs', async () => {
  const hanging = await startWorld({ ownRedis: true, variables: WITH_ADMIN });
  try {
    const number = freshNumber();
    const { body } = await sendOtp(hanging.url, number);
    // The ledger waits to write it.
    await verifyOtp(hanging.url, body.requestId, wrongCode(textedCode(hanging.upstream, number)));
    hanging.redis.pause();
    expect(statusAndCode(await asAdmin('GET', `${hanging.url}/admin/usage`))).toEqual([
      503,
      'store_unavailable',
    ]);
  } finally {
    hanging.redis.resume();
    await hanging.close();
  }
});
