import { createHash } from 'node:crypto';
import { type Call, check, type History, recoveries, type Rules, story } from '../support/history';
import { requestIdOf } from '../support/keys';

const OWNER = '+919820010001';
const OTHER = '+919820010002';
/** As long as a pseudonym is, and of one shard each. */
const [HERS, HIS] = [`${'p'.repeat(21)}A`, `${'q'.repeat(21)}A`];
const requestOf = (pseudonym: string, name: string): string =>
  requestIdOf(pseudonym, createHash('md5').update(name).digest());
const pseudonymOf = (i: number): string => `${String(i).padStart(21, 's')}A`;
const REQUEST = requestOf(HERS, 'first');
const CODE = '111111';
const GUESS = '999999';
const SUBJECT = 'her-subject';
const SESSION = 'her-session';

const RULES: Rules = {
  phone: [{ count: 3, seconds: 20 }],
  service: [{ count: 10, seconds: 20 }],
  pricePaise: 25,
  budgetPaise: 1_000,
  attempts: 3,
  sessionsPerUser: 2,
  codeLifeMs: 300_000,
  graceMs: 60_000,
  storeMs: 1_000,
  upstreamMs: 8_000,
  upstreamDeadlineMs: 3_000,
  healMs: 15_000,
};
const SHARDS: Record<string, number> = { [HERS]: 0, [HIS]: 0, [SUBJECT]: 1, admission: 2 };

/** A call that takes ten milliseconds. */
function call(op: Call['op'], at: number, facts: Partial<Call> = {}): Call {
  const status = op === 'logout' ? 204 : 200;
  return {
    client: 'c01',
    op,
    at,
    until: at + 10,
    instance: 0,
    status,
    outcome: 'ok',
    retryAfter: false,
    ...facts,
  };
}

const refused = (status: number, outcome: string): Partial<Call> => ({
  status,
  outcome,
  retryAfter: [409, 429, 503].includes(status),
});

const send = (at: number, facts: Partial<Call> = {}): Call =>
  call('send', at, { number: OWNER, request: REQUEST, ...facts });
const verify = (at: number, facts: Partial<Call> = {}): Call => {
  const opened = { subject: SUBJECT, session: SESSION, counter: 0, number: OWNER };
  const good = facts.status === undefined || facts.status === 200;
  return call('verify', at, {
    number: OWNER,
    request: REQUEST,
    code: CODE,
    ...(good && { got: opened }),
    ...facts,
  });
};
const token = (counter: number, session = SESSION) => ({ subject: SUBJECT, session, counter });
const refresh = (at: number, counter: number, facts: Partial<Call> = {}): Call => {
  const good = facts.status === undefined;
  return call('refresh', at, { given: token(counter), ...(good && { got: token(counter + 1) }), ...facts });
};
const me = (at: number, facts: Partial<Call> = {}): Call => {
  const access = { subject: SUBJECT, session: SESSION, expires: 600_000 };
  const good = facts.status === undefined;
  return call('me', at, { given: access, ...(good && { got: { ...access, number: OWNER } }), ...facts });
};
const logout = (at: number, facts: Partial<Call> = {}): Call =>
  call('logout', at, { given: token(0), ...facts });

const sms = (at: number, facts: Partial<History['messages'][number]> = {}): History['messages'][number] => ({
  at,
  number: OWNER,
  code: CODE,
  key: `u${at}`,
  failed: false,
  ...facts,
});
const admitted = (at: number, id = `${at}-0`, pseudonym = HERS): History['ledger'][number] => ({
  id,
  event: 'sent',
  at,
  pseudonym,
});
const refund = (at: number, of: string): History['ledger'][number] => ({
  id: `${at}-1`,
  event: 'refunded',
  at,
  sms: of,
});
const killed = (shard: number, at: number): History['failovers'][number] => ({
  kind: 'killed',
  shard,
  at,
  until: at + 3_000,
});

/** One login, ten seconds after the start; what the ledger says is what usage says, unless told otherwise. */
function history(change: Partial<History> = {}): History {
  const ledger = change.ledger ?? [admitted(10_001)];
  const of = (name: string): number => ledger.filter(({ event }) => event === name).length;
  return {
    contract: 'caller',
    calls: [send(10_000), verify(11_000)],
    messages: [sms(10_002)],
    looks: [],
    usage: { sent: of('sent'), refunded: of('refunded') },
    instanceKills: [],
    failovers: [],
    shardOf: (tag) => SHARDS[tag],
    rules: RULES,
    ...change,
    ledger,
  };
}

const login = [send(10_000), verify(11_000)];
const rulesBroken = (change: Partial<History>): string[] => [
  ...new Set(check(history(change)).violations.map(({ rule }) => rule)),
];
const allowed = (change: Partial<History>): [violations: number, allowances: number] => {
  const { violations, allowances } = check(history(change));
  return [violations.length, allowances.length];
};

describe('a history in which nothing went wrong', () => {
  it('the checker finds no violation in a history in which nothing went wrong', () => {
    const calls = [
      ...login,
      refresh(12_000, 0),
      me(13_000),
      // A lost answer, and its repeat.
      refresh(14_000, 1, { ...refused(0, 'ECONNRESET') }),
      refresh(15_000, 1),
      logout(16_000),
      me(17_000, refused(401, 'session_revoked')),
      refresh(18_000, 2, refused(401, 'session_revoked')),
    ];
    const instanceKills = [{ instance: 0, at: 14_005, until: 14_500 }];
    expect(check(history({ calls, instanceKills }))).toEqual({ violations: [], allowances: [] });
  });
});

describe('SMS', () => {
  it('the checker reports an SMS that was not admitted', () => {
    expect(rulesBroken({ messages: [sms(10_002), sms(10_003, { key: 'u2' })] })).toEqual(['admission']);
    expect(rulesBroken({ ledger: [admitted(10_001), refund(10_009, '10001-0')] })).toEqual(['admission']);
    const another = [admitted(10_001), admitted(10_002, 'x', HIS)];
    expect(rulesBroken({ messages: [sms(10_002), sms(10_003)], ledger: another })).toEqual(['admission']);
  });

  it('the checker counts admitted SMS by upstream key under provider, and one a key under both contracts', () => {
    const messages = [sms(10_002), sms(10_003, { key: 'u2' })];
    expect(rulesBroken({ contract: 'provider', messages })).toEqual(['admission']);
    const twice = [sms(10_002, { key: 'u1' }), sms(10_003, { key: 'u1' })];
    expect(rulesBroken({ contract: 'provider', messages: twice })).toEqual(['upstream key']);
    const ledger = [admitted(10_001), admitted(10_002, 'x')];
    expect(rulesBroken({ contract: 'caller', messages: twice, ledger })).toEqual(['upstream key']);
  });

  it('the checker accepts an SMS whose admission was lost with the primary, and no other', () => {
    const messages = [sms(10_002), sms(10_003, { key: 'u2' })];
    expect(allowed({ messages, failovers: [killed(2, 10_500)] })).toEqual([0, 1]);
    // Accepted after the kill, and admitted before it.
    expect(allowed({ messages, failovers: [killed(2, 8_000)] })).toEqual([0, 1]);
    expect(allowed({ messages, failovers: [killed(1, 10_500)] })[0]).toBe(1);
    expect(allowed({ messages, failovers: [killed(2, 12_000)] })[0]).toBe(1);
    const more = [sms(10_002), sms(30_000), sms(31_000)];
    expect(allowed({ messages: more, failovers: [killed(2, 10_500)] })[0]).toBe(1);
    expect(allowed({ messages, failovers: [killed(2, 6_000)] })[0]).toBe(1);
    expect(allowed({ messages, failovers: [{ ...killed(2, 10_500), kind: 'planned' }] })[0]).toBe(1);
  });

  it('the checker reports one upstream key that reached two numbers', () => {
    const calls = [...login, send(10_000, { number: OTHER, request: requestOf(HIS, 'second') })];
    const ledger = [admitted(10_001), admitted(10_002, 'x', HIS)];
    const messages = [sms(10_002, { key: 'u1' }), sms(10_003, { number: OTHER, key: 'u1' })];
    expect(rulesBroken({ calls, ledger, messages })).toEqual(['upstream key']);
  });

  it('the checker holds a number to its limits, by admitted and by accepted SMS', () => {
    const times = [10_000, 15_000, 20_000, 25_000];
    const ledger = times.map((at) => admitted(at));
    const messages = times.map((at) => sms(at));
    expect(rulesBroken({ ledger, messages })).toEqual(['limit']);
    expect(rulesBroken({ ledger, messages: [sms(10_002)] })).toEqual(['limit']);
    const spread = [10_000, 15_000, 20_000, 30_001];
    expect(
      rulesBroken({ ledger: spread.map((at) => admitted(at)), messages: spread.map((at) => sms(at)) }),
    ).toEqual([]);
    // What the ledger says of their times is not believed alone: these four were accepted within 16.5 seconds.
    const late = [10_000, 20_000, 20_001, 45_000].map((at) => admitted(at));
    expect(rulesBroken({ ledger: late, messages: times.map((at) => sms(at)) })).toEqual(['limit']);
  });

  it('the checker forgives five SMS that the carrier failed', () => {
    const times = [10_000, 11_000, 12_000, 13_000];
    const ledger = times.map((at) => admitted(at));
    const failed = (count: number) => times.map((at, i) => sms(at, { failed: i < count }));
    expect(rulesBroken({ ledger, messages: failed(1) })).toEqual([]);
    const many = Array.from({ length: 9 }, (_, i) => 10_000 + i);
    const nine = many.map((at) => admitted(at));
    const messages = many.map((at) => sms(at, { failed: true }));
    expect(rulesBroken({ ledger: nine, messages })).toEqual(['limit']);
    expect(rulesBroken({ ledger: nine.slice(1), messages: messages.slice(1) })).toEqual([]);
  });

  it('the checker holds the whole service to its limits', () => {
    const numbers = Array.from({ length: 11 }, (_, i) => `+91982002000${i}`);
    const asked = numbers.map((number, i) =>
      send(10_000, { number, request: requestOf(pseudonymOf(i), 'r') }),
    );
    const ledger = numbers.map((_, i) => admitted(10_001, `${i}`, pseudonymOf(i)));
    const messages = numbers.map((number, i) => sms(10_002, { number, key: `k${i}` }));
    expect(rulesBroken({ calls: asked, ledger, messages })).toEqual(['limit']);
    const ten = { calls: asked.slice(1), ledger: ledger.slice(1), messages: messages.slice(1) };
    expect(rulesBroken(ten)).toEqual([]);
  });

  it('the checker accepts SMS over a limit when admissions were lost with the primary', () => {
    const times = [10_000, 10_100, 10_200, 10_300];
    const messages = times.map((at, i) => sms(at, { key: `u${i}` }));
    const ledger = times.slice(1).map((at) => admitted(at));
    expect(allowed({ ledger, messages, failovers: [killed(2, 10_050)] })).toEqual([0, 2]);
    expect(allowed({ ledger, messages })[0]).toBe(2);
  });

  it('the checker holds the cost to the budget, without refunds', () => {
    const rules = { ...RULES, budgetPaise: 25 };
    const ledger = [admitted(10_001, 'a'), admitted(10_002, 'b')];
    expect(rulesBroken({ rules, ledger })).toEqual(['budget']);
    expect(rulesBroken({ rules, ledger: [...ledger, refund(10_003, 'b')] })).toEqual([]);
  });

  it('the checker compares the usage report with the ledger', () => {
    expect(rulesBroken({ usage: { sent: 2, refunded: 0 } })).toEqual(['usage']);
    expect(rulesBroken({ usage: { sent: 1, refunded: 1 } })).toEqual(['usage']);
  });
});

describe('a token', () => {
  it('the checker reports a token without a code that was sent to its number before', () => {
    const withCode = (code: string) => [send(10_000), verify(11_000, { code })];
    expect(rulesBroken({ calls: withCode(GUESS) })).toEqual(['token without a code']);
    expect(rulesBroken({ messages: [sms(12_000)] })).toEqual(['token without a code']);
    const his = [sms(10_002), sms(10_003, { number: OTHER, code: GUESS, key: 'u2' })];
    const both = [...withCode(GUESS), send(10_000, { number: OTHER, request: requestOf(HIS, 'second') })];
    const ledger = [admitted(10_001), admitted(10_002, 'x', HIS)];
    expect(rulesBroken({ calls: both, messages: his, ledger })).toEqual(['token without a code']);
  });

  it('the checker reports a token for a request that was never answered', () => {
    expect(
      rulesBroken({ calls: [send(10_000), verify(11_000, { request: requestOf(HERS, 'made-up') })] }),
    ).toEqual(['token without a code']);
  });

  it('the checker reports a token of a session that was never opened', () => {
    expect(rulesBroken({ calls: [send(10_000), refresh(12_000, 0)] })).toEqual(['token without a code']);
  });

  it('the checker reports a refresh that changes session or subject', () => {
    const got = token(1, 'another');
    const second = [
      send(13_000, { request: requestOf(HERS, '2') }),
      verify(14_000, { request: requestOf(HERS, '2'), got }),
    ];
    expect(rulesBroken({ calls: [...login, ...second, refresh(15_000, 0, { got })] })).toContain(
      'another session',
    );
    const stranger = { ...token(1), subject: 'his-subject' };
    expect(rulesBroken({ calls: [...login, refresh(12_000, 0, { got: stranger })] })).toEqual([
      'another session',
    ]);
  });

  it('the checker reports a token of another number than the verified one', () => {
    const told = { subject: SUBJECT, session: SESSION, number: OTHER };
    expect(rulesBroken({ calls: [send(10_000), verify(11_000, { got: told })] })).toEqual(['another number']);
    expect(rulesBroken({ calls: [...login, me(12_000, { got: told })] })).toEqual(['another number']);
  });

  it('the checker reports a subject with two numbers', () => {
    const request = requestOf(HIS, 'second');
    const got = { subject: SUBJECT, session: 'his', number: OTHER };
    const calls = [
      ...login,
      send(12_000, { number: OTHER, request }),
      verify(13_000, { request, got, number: OTHER }),
    ];
    const messages = [sms(10_002), sms(12_002, { number: OTHER, key: 'u2' })];
    const ledger = [admitted(10_001), admitted(12_001, 'x', HIS)];
    expect(rulesBroken({ calls, messages, ledger })).toEqual(['another number']);
  });
});

describe('a request id', () => {
  it('the checker reports a request id that opens two sessions, and a session of two request ids', () => {
    const got = { ...token(0, 'second'), number: OWNER };
    expect(rulesBroken({ calls: [...login, verify(12_000, { got })] })).toEqual(['one session']);
    const request = requestOf(HERS, '2');
    expect(
      rulesBroken({ calls: [...login, send(12_000, { request }), verify(13_000, { request })] }),
    ).toEqual(['one session']);
    expect(rulesBroken({ calls: [...login, verify(12_000)] })).toEqual([]);
  });

  it('the checker reports two request ids under one Idempotency-Key', () => {
    const twice = [send(10_000, { key: 'k' }), send(10_100, { key: 'k', request: requestOf(HERS, '2') })];
    expect(rulesBroken({ calls: twice })).toEqual(['one answer']);
    expect(allowed({ calls: twice, failovers: [killed(0, 10_050)] })).toEqual([0, 1]);
    expect(
      rulesBroken({ calls: [twice[0]!, send(10_100, { key: 'k2', request: requestOf(HERS, '2') })] }),
    ).toEqual([]);
  });

  it('the checker counts the attempts of a request id, and a repeat under its key is no attempt', () => {
    const wrong = (i: number, key?: string) =>
      verify(11_000 + i * 100, { ...refused(400, 'otp_incorrect'), code: GUESS, key });
    expect(rulesBroken({ calls: [send(10_000), ...[0, 1, 2].map((i) => wrong(i))] })).toEqual([]);
    expect(rulesBroken({ calls: [send(10_000), ...[0, 1, 2, 3].map((i) => wrong(i))] })).toEqual([
      'attempts',
    ]);
    const three = [send(10_000), ...[0, 1, 2].map((i) => wrong(i, `k${i}`))];
    expect(rulesBroken({ calls: [...three, wrong(3, 'k2')] })).toEqual([]);
    expect(rulesBroken({ calls: [...three, wrong(3, 'k3')] })).toEqual(['attempts']);
    expect(rulesBroken({ calls: [...three, verify(12_000)] })).toEqual(['attempts']);
    expect(allowed({ calls: [...three, wrong(3, 'k3')], failovers: [killed(0, 11_150)] })).toEqual([0, 1]);
  });
});

describe('the right code', () => {
  const expired = refused(410, 'otp_expired');
  const wrong = refused(400, 'otp_incorrect');

  it('the checker reports a right code that was called wrong or expired without a reason', () => {
    expect(rulesBroken({ calls: [send(10_000), verify(11_000, wrong)] })).toEqual(['right code']);
    expect(rulesBroken({ calls: [send(10_000), verify(11_000, expired)] })).toEqual(['right code']);
    expect(rulesBroken({ calls: [send(10_000), verify(11_000, { ...wrong, code: GUESS })] })).toEqual([]);
  });

  it('the checker lets a used code be expired, while a repeat under its key gets the same response', () => {
    const lost = refused(503, 'store_unavailable');
    const failovers = [killed(1, 10_900)];
    const again = (key: string) => [
      send(10_000),
      verify(11_000, { ...lost, key: 'k1' }),
      verify(12_000, { ...expired, key }),
    ];
    expect(rulesBroken({ calls: again('k2'), failovers })).toEqual([]);
    expect(rulesBroken({ calls: again('k1'), failovers })).toEqual(['right code']);
    const refusedBefore = [
      send(10_000),
      verify(11_000, refused(429, 'phone_locked')),
      verify(12_000, expired),
    ];
    expect(rulesBroken({ calls: refusedBefore })).toEqual(['right code']);
    expect(rulesBroken({ calls: [send(10_000), verify(11_000, expired), verify(12_000)] })).toEqual([
      'right code',
    ]);
    expect(rulesBroken({ calls: [...login, verify(12_000, wrong)] })).toEqual(['right code']);
  });

  it('the checker makes no claim about a code of a shared phone, or after half of its life', () => {
    expect(rulesBroken({ calls: [send(10_000, { shared: true }), verify(11_000, expired)] })).toEqual([]);
    expect(rulesBroken({ calls: [send(10_000), verify(170_000, expired)] })).toEqual([]);
  });

  it('the checker lets a newer code replace an older one under provider only', () => {
    const calls = [send(10_000), send(10_500, refused(502, 'upstream_unavailable')), verify(11_000, expired)];
    calls[1]!.request = undefined;
    expect(rulesBroken({ calls, contract: 'provider' })).toEqual([]);
    expect(rulesBroken({ calls })).toEqual(['right code']);
  });

  it('the checker lets upstream refuse a right code in the very call in which it lied', () => {
    const provider = { contract: 'provider' } as const;
    const look = (status: number, at = 11_005) => ({ looks: [{ at, code: CODE, status, accepted: false }] });
    const said = (facts: Partial<Call>) => ({ calls: [send(10_000), verify(11_000, facts)], ...provider });
    expect(rulesBroken({ ...said(wrong), ...look(400) })).toEqual([]);
    expect(rulesBroken({ ...said(expired), ...look(410) })).toEqual([]);
    expect(rulesBroken({ ...said(wrong), ...look(500) })).toEqual(['right code']);
    expect(rulesBroken({ ...said(expired), ...look(400) })).toEqual(['right code']);
    expect(rulesBroken({ ...said(wrong), ...look(400, 12_000) })).toEqual(['right code']);
  });

  it('the checker lets a right code be lost with the primary', () => {
    const calls = [send(10_000), verify(11_000, expired)];
    expect(allowed({ calls, failovers: [killed(0, 10_500)] })).toEqual([0, 1]);
    expect(allowed({ calls, failovers: [killed(1, 10_500)] })[0]).toBe(1);
  });
});

describe('a session that has ended', () => {
  it.each<[string, Call[]]>([
    ['logged out, and me', [logout(12_000), me(13_000)]],
    ['logged out, and refresh', [logout(12_000), refresh(13_000, 0)]],
    ['logged out, and its verification again', [logout(12_000), verify(13_000)]],
    [
      'ended by reuse, and me',
      [
        refresh(12_000, 0),
        refresh(12_100, 1),
        refresh(12_200, 0, refused(401, 'refresh_token_reused')),
        me(13_000),
      ],
    ],
    [
      'told to be revoked, and me',
      [
        logout(12_000, refused(503, 'store_unavailable')),
        me(12_500, refused(401, 'session_revoked')),
        me(13_000),
      ],
    ],
  ])('the checker reports an ended session that works again: %s', (_, rest) => {
    expect(rulesBroken({ calls: [...login, ...rest], failovers: [killed(1, 11_500)] })).toEqual([
      'ended session',
    ]);
  });

  it('the checker accepts a response that was requested before the session had ended', () => {
    expect(rulesBroken({ calls: [...login, logout(12_000), me(12_009)] })).toEqual([]);
    expect(
      rulesBroken({
        calls: [...login, logout(12_000, refused(503, 'store_unavailable')), me(13_000)],
        failovers: [killed(1, 11_500)],
      }),
    ).toEqual([]);
  });
});

describe('a 401', () => {
  it.each(['session_revoked', 'session_expired', 'unauthenticated'])(
    'the checker reports a 401 without a reason: %s at me',
    (outcome) => {
      expect(rulesBroken({ calls: [...login, me(12_000, refused(401, outcome))] })).toEqual(['401']);
    },
  );

  it.each(['session_revoked', 'session_expired', 'refresh_token_reused', 'refresh_token_invalid'])(
    'the checker reports a 401 without a reason: %s at refresh',
    (outcome) => {
      expect(rulesBroken({ calls: [...login, refresh(12_000, 0, refused(401, outcome))] })).toEqual(['401']);
    },
  );

  it('the checker explains a 401 by a logout, also by one whose response was lost', () => {
    const ended = me(13_000, refused(401, 'session_revoked'));
    expect(rulesBroken({ calls: [...login, logout(12_000), ended] })).toEqual([]);
    const lost = logout(12_000, refused(0, 'ECONNRESET'));
    const instanceKills = [{ instance: 0, at: 12_005, until: 13_000 }];
    expect(rulesBroken({ calls: [...login, lost, ended], instanceKills })).toEqual([]);
    expect(rulesBroken({ calls: [...login, ended, logout(14_000)] })).toEqual(['401']);
  });

  it('the checker explains a 401 by the reuse of an old token, not by the repeat of the newest', () => {
    const reused = refused(401, 'refresh_token_reused');
    const used = [...login, refresh(12_000, 0), refresh(12_100, 1)];
    expect(rulesBroken({ calls: [...used, refresh(12_200, 0, reused)] })).toEqual([]);
    expect(rulesBroken({ calls: [...used, refresh(12_200, 1, reused)] })).toEqual(['401']);
    const repeated = [...used, refresh(12_200, 1), me(12_300, refused(401, 'session_revoked'))];
    expect(rulesBroken({ calls: repeated })).toEqual(['401']);
    // Later than the grace, the repeat is a thief's.
    expect(rulesBroken({ calls: [...used, refresh(80_000, 1, reused)] })).toEqual([]);
    const revoked = refresh(13_000, 2, refused(401, 'session_revoked'));
    expect(rulesBroken({ calls: [...used, refresh(12_200, 0, reused), revoked] })).toEqual([]);
    const lost = refused(503, 'store_unavailable');
    const failovers = [killed(2, 12_000)];
    expect(rulesBroken({ calls: [...used, refresh(12_200, 0, lost), revoked], failovers })).toEqual([]);
    expect(rulesBroken({ calls: [...used, refresh(12_200, 2, lost), revoked], failovers })).toEqual(['401']);
  });

  it('the checker explains a 401 by an expired access token', () => {
    const late = { given: { subject: SUBJECT, session: SESSION, expires: 12_000 } };
    expect(
      rulesBroken({ calls: [...login, me(13_000, { ...refused(401, 'unauthenticated'), ...late })] }),
    ).toEqual([]);
  });

  it('the checker explains a 401 by as many younger sessions as a person may have', () => {
    const younger = (i: number): Call[] => {
      const request = requestOf(HERS, `younger-${i}`);
      const got = { ...token(0, `younger-${i}`), number: OWNER };
      return [send(12_000 + i, { request }), verify(12_100 + i, { request, got })];
    };
    const ended = me(13_000, refused(401, 'session_revoked'));
    expect(rulesBroken({ calls: [...login, ...younger(1), ...younger(2), ended] })).toEqual([]);
    expect(rulesBroken({ calls: [...login, ...younger(1), ended] })).toEqual(['401']);
  });

  it('the checker explains a 401 by a lost session or by two lost rotations, not by one', () => {
    const gone = me(12_000, refused(401, 'session_expired'));
    expect(allowed({ calls: [...login, gone], failovers: [killed(1, 11_500)] })).toEqual([0, 1]);
    expect(allowed({ calls: [...login, gone], failovers: [killed(0, 11_500)] })[0]).toBe(1);
    expect(allowed({ calls: [...login, gone, me(13_000)], failovers: [killed(1, 11_500)] })[0]).toBe(1);
    const invalid = (counter: number) => refresh(14_000, counter, refused(401, 'refresh_token_invalid'));
    const failovers = [killed(1, 13_500)];
    const one = [...login, refresh(13_000, 0), invalid(1)];
    const two = [...login, refresh(13_000, 0), refresh(13_200, 1), invalid(2)];
    expect(allowed({ calls: one, failovers })[0]).toBe(1);
    expect(allowed({ calls: two, failovers })).toEqual([0, 1]);
  });
});

describe('an answer', () => {
  it('the checker reports a response that came too late', () => {
    expect(rulesBroken({ calls: [...login, { ...me(12_000), until: 13_001 }] })).toEqual(['deadline']);
    expect(rulesBroken({ calls: [{ ...send(10_000), until: 18_001 }] })).toEqual(['deadline']);
    expect(rulesBroken({ calls: [{ ...send(2_500), until: 10_500 }] })).toEqual([]);
    const slow = [send(10_000), { ...verify(11_000), until: 13_000 }];
    expect(rulesBroken({ calls: slow })).toEqual(['deadline']);
    expect(rulesBroken({ calls: slow, contract: 'provider' })).toEqual([]);
  });

  it('the checker accepts a missing response only from an instance that was killed', () => {
    const lost = me(12_000, { ...refused(0, 'ECONNRESET'), instance: 1 });
    expect(rulesBroken({ calls: [...login, lost] })).toEqual(['connection']);
    const kill = (instance: number, at: number) => ({ instanceKills: [{ instance, at, until: at + 500 }] });
    expect(rulesBroken({ calls: [...login, lost], ...kill(1, 11_800) })).toEqual([]);
    expect(rulesBroken({ calls: [...login, lost], ...kill(0, 11_800) })).toEqual(['connection']);
    expect(rulesBroken({ calls: [...login, lost], ...kill(1, 12_100) })).toEqual(['connection']);
    expect(rulesBroken({ calls: [...login, lost], ...kill(1, 11_000) })).toEqual(['connection']);
  });

  it.each<[Call['op'], number, string]>([
    ['send', 500, 'undefined'],
    ['send', 410, 'otp_expired'],
    ['verify', 500, 'internal_error'],
    ['verify', 422, 'idempotency_key_reused'],
    ['status', 500, 'internal_error'],
    ['refresh', 500, 'internal_error'],
    ['me', 502, 'upstream_unavailable'],
    ['logout', 401, 'unauthenticated'],
    ['logout', 200, 'ok'],
  ])('the checker reports a response that the route does not document: %s %i %s', (op, status, outcome) => {
    const odd = call(op, 12_000, { ...refused(status, outcome), number: OWNER });
    expect(rulesBroken({ calls: [...login, odd] })).toEqual(['documented']);
  });

  it('the checker accepts trouble of upstream in a verification under provider', () => {
    const odd = verify(12_000, refused(500, 'internal_error'));
    expect(rulesBroken({ calls: [...login, odd], contract: 'provider' })).toEqual([]);
  });

  it.each([
    [409, 'idempotency_in_progress'],
    [429, 'rate_limited'],
    [503, 'overloaded'],
  ])('the checker reports a %i %s without a Retry-After', (status, outcome) => {
    const calls = [...login, send(12_000, { ...refused(status, outcome), request: undefined })];
    expect(rulesBroken({ calls })).toEqual([]);
    expect(rulesBroken({ calls: calls.map((one) => ({ ...one, retryAfter: false })) })).toEqual([
      'documented',
    ]);
  });
});

describe('Redis', () => {
  const away = me(30_000, refused(503, 'store_unavailable'));

  it('the checker accepts an unavailable Redis only for a while after a failover', () => {
    expect(rulesBroken({ calls: [...login, away] })).toEqual(['Redis is back']);
    expect(rulesBroken({ calls: [...login, away], failovers: [killed(1, 13_000)] })).toEqual([]);
    expect(rulesBroken({ calls: [...login, away], failovers: [killed(1, 11_900)] })).toEqual([
      'Redis is back',
    ]);
    expect(rulesBroken({ calls: [...login, away], failovers: [killed(1, 31_500)] })).toEqual([
      'Redis is back',
    ]);
  });

  it('the checker accepts an unavailable Redis at an instance that has just started', () => {
    const started = (instance: number, until: number) => ({
      calls: [...login, away],
      instanceKills: [{ instance, at: 29_000, until }],
    });
    expect(rulesBroken(started(0, 30_500))).toEqual([]);
    expect(rulesBroken(started(1, 30_500))).toEqual(['Redis is back']);
    expect(rulesBroken(started(0, 29_900))).toEqual(['Redis is back']);
    const failovers = [killed(1, 28_000)];
    expect(recoveries(history({ ...started(0, 30_500), failovers }))).toEqual([0]);
  });

  it('the checker measures a recovery from the failover to the last refused request', () => {
    const failovers = [killed(1, 28_000), killed(1, 40_000)];
    expect(recoveries(history({ calls: [...login, away], failovers }))).toEqual([2_010, 0]);
  });
});

describe('the story of a violation', () => {
  it('the story of a violation lists the calls in short lines with the kills in between, and no whole number', () => {
    const calls = [...login, me(12_000, refused(401, 'session_revoked'))];
    const failovers = [killed(2, 11_500)];
    const [violation] = check(history({ calls, failovers })).violations;
    expect(violation?.story).toEqual([
      `+1.000 c01 i0 verify number=…0001 request=${REQUEST.slice(-6)} code=111111 got=her-session#0 -> 200 ok (10 ms)`,
      '+1.500 -- failover of shard 2, killed, over after 3000 ms',
      '+2.000 c01 i0 me token=her-session -> 401 session_revoked (10 ms)',
    ]);
    const instanceKills = [{ instance: 1, at: 11_200, until: 12_000 }];
    expect(story(history({ calls, instanceKills }), calls)[2]).toBe('+1.200 -- instance 1 killed');
  });
});
