import { API_KEY, call, freshNumber, sendOtp, statusAndCode, textedCode, verifyOtp } from '../support/world';
import { EDITION_SETTINGS, startEdition, type RunningEdition } from '../support/edition';

// Killed processes, lost responses, a store and a secret that cannot be reached.

let edition: RunningEdition | undefined;
afterEach(async () => {
  await edition?.close();
  edition = undefined;
});

it('a Worker that is killed during sends never lets one send too many pass', async () => {
  edition = await startEdition('worker', { LIMIT_PHONE: '5/3600' });
  const { folder, pid, upstream } = edition;
  const phone = freshNumber();
  const sends = Array.from({ length: 40 }, () => sendOtp(edition!.url, phone).catch(() => undefined));
  // It is killed when some of the sends have reached the provider and others have not.
  await Promise.race(sends);
  process.kill(pid, 'SIGKILL');
  await Promise.all(sends);
  const before = upstream.messages.length;

  const next = await startEdition('worker', { LIMIT_PHONE: '5/3600' }, { DESK_FOLDER: folder });
  try {
    const answers = await Promise.all(Array.from({ length: 40 }, () => sendOtp(next.url, phone)));
    expect(new Set(answers.map(({ status }) => status)).has(429)).toBe(true);
    expect(before + next.upstream.messages.length).toBeLessThanOrEqual(5);
  } finally {
    await next.close();
  }
});

it('the Worker names all faults of its settings in the log, and the caller gets no details', async () => {
  edition = await startEdition('worker', {
    SECRET: 'short',
    JWT_KEY: 'none',
    LIMIT_PHONE: 'x',
    ISSUER: undefined,
  });
  const answer = await sendOtp(edition.url, freshNumber());
  expect(statusAndCode(answer)).toEqual([500, 'internal_error']);
  const logs = await edition.logs();
  for (const name of ['SECRET', 'JWT_KEY', 'LIMIT_PHONE', 'ISSUER']) {
    expect(logs).toContain(name);
    expect(JSON.stringify(answer.body)).not.toContain(name);
  }
  expect(logs).not.toContain('short');
});

it('a Lambda function answers right when the responses to its writes are lost', async () => {
  edition = await startEdition('lambda', { LIMIT_PHONE: '2/3600', LIMIT_FAILED_CODES: '1/3600' });
  const phone = freshNumber();
  // Each write of the send is repeated by the SDK, and must count once.
  await edition.desk('/faults', { lose: 4 });
  const sent = await sendOtp(edition.url, phone);
  expect(sent.status).toBe(200);
  expect(edition.upstream.messages).toHaveLength(1);
  expect(sent.body.attemptsLeft).toBe(3);
  // A lost response to the last step would otherwise turn a right code into a 410.
  await edition.desk('/faults', { lose: 4 });
  const verified = await verifyOtp(edition.url, sent.body.requestId, textedCode(edition.upstream, phone));
  expect(verified.status).toBe(200);
  const second = await sendOtp(edition.url, phone);
  expect(second.status).toBe(200);
  expect(statusAndCode(await sendOtp(edition.url, phone))).toEqual([429, 'rate_limited']);

  // An instance may be removed after any answer: nothing that counts is in its memory.
  await edition.desk('/remove');
  const headers = { authorization: `Bearer ${verified.body.accessToken as string}` };
  expect((await call('GET', `${edition.url}/auth/me`, undefined, headers)).status).toBe(200);

  // Without its store it sends nothing.
  await edition.desk('/faults', { refuse: true });
  expect(statusAndCode(await sendOtp(edition.url, freshNumber()))).toEqual([503, 'store_unavailable']);
  expect(edition.upstream.messages).toHaveLength(2);
});

it('a Lambda function starts again after a start that failed', async () => {
  edition = await startEdition('lambda');
  await edition.desk('/secret', { refuse: true });
  expect(statusAndCode(await sendOtp(edition.url, freshNumber()))).toEqual([500, 'internal_error']);
  const good = JSON.stringify({ ...EDITION_SETTINGS, STARTMESSAGING_BASE_URL: edition.upstream.url });
  await edition.desk('/secret', { refuse: false, value: '{"SECRET":"short","LIMIT_IP":"x"}' });
  expect(statusAndCode(await sendOtp(edition.url, freshNumber()))).toEqual([500, 'internal_error']);
  const logs = await edition.logs();
  for (const name of ['SECRET', 'SUBJECT_SECRET', 'LIMIT_IP', 'JWT_KEY', 'STARTMESSAGING_API_KEY'])
    expect(logs).toContain(name);
  await edition.desk('/secret', { value: good });
  expect((await sendOtp(edition.url, freshNumber())).status).toBe(200);
  // A read that fails later changes nothing.
  await edition.desk('/secret', { refuse: true });
  expect((await sendOtp(edition.url, freshNumber())).status).toBe(200);
  expect(await edition.logs()).not.toContain(API_KEY);
});

it('two instances whose clocks differ by half a second never let one send too many pass', async () => {
  edition = await startEdition('lambda', { LIMIT_PHONE: '3/3600' }, { DESK_SKEW_MS: '500' });
  const phone = freshNumber();
  const answers = await Promise.all(Array.from({ length: 12 }, () => sendOtp(edition!.url, phone)));
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(3);
  expect(edition.upstream.messages).toHaveLength(3);
});
