import {
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type Answer,
  type World,
} from '../support/world';

let world: World;
afterEach(() => world.close());

/** The calls spread over the instances, all at once. */
function atOnce(count: number, send: (url: string) => Promise<Answer>): Promise<Answer[]> {
  return Promise.all(
    Array.from({ length: count }, (_, i) => send(world.instances[i % world.instances.length]?.url ?? '')),
  );
}

function countBy(answers: Answer[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { status, body } of answers) {
    const key = status === 200 ? '200' : `${String(status)} ${String(body.code)}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

describe.each(['caller', 'provider'] as const)('over three instances under the %s contract', (contract) => {
  const variables = {
    STARTMESSAGING_CONTRACT: contract,
    UPSTREAM_TIMEOUT_MS: '10000',
    UPSTREAM_DEADLINE_MS: '20000',
  };

  it('500 sends to one number with a limit of 5 are exactly 5 SMS', async () => {
    world = await startWorld({ variables: { ...variables, LIMIT_PHONE: '5/600' }, count: 3 });
    const phoneNumber = freshNumber();
    const answers = await atOnce(500, (url) => sendOtp(url, phoneNumber));
    expect(countBy(answers)).toEqual({ '200': 5, '429 rate_limited': 495 });
    expect(world.upstream.messages).toHaveLength(5);
    expect(world.upstream.calls).toHaveLength(5);
  });

  it('200 right codes are one session', async () => {
    world = await startWorld({ variables, count: 3 });
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    const answers = await atOnce(200, (url) => verifyOtp(url, body.requestId, code));
    expect(countBy(answers)['200']).toBe(1);
    expect(
      answers.every(({ status, body: answer }) => status === 200 || answer.code.startsWith('otp_')),
    ).toBe(true);
  });

  it('200 wrong codes are three looked at', async () => {
    world = await startWorld({ variables, count: 3 });
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = wrongCode(textedCode(world.upstream, phoneNumber));
    const before = world.upstream.calls.length;
    const answers = await atOnce(200, (url) => verifyOtp(url, body.requestId, code));
    expect(countBy(answers)).toEqual({ '400 otp_incorrect': 3, '410 otp_attempts_exhausted': 197 });
    expect(world.upstream.calls.length - before).toBe(contract === 'provider' ? 3 : 0);
    expect(
      answers
        .filter(({ status }) => status === 400)
        .map((answer) => answer.body.attemptsLeft as number)
        .sort(),
    ).toEqual([0, 1, 2]);
  });
});

it('300 sends from one address with a limit of 20 are 20, and the budget holds to the paisa', async () => {
  world = await startWorld({
    variables: { LIMIT_IP: '40/600', BUDGET_PAISE_PER_HOUR: '500', STARTMESSAGING_CONTRACT: 'caller' },
    count: 3,
  });
  const answers = await atOnce(300, (url) => sendOtp(url, freshNumber()));
  expect(countBy(answers)).toEqual({ '200': 20, '503 sms_unavailable': 20, '429 rate_limited': 260 });
  expect(world.upstream.messages).toHaveLength(20);
});

it('two resends at once text one code, and the code works', async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller' }, count: 3 });
  const phoneNumber = freshNumber();
  const answers = await atOnce(30, (url) => sendOtp(url, phoneNumber));
  expect(new Set(world.upstream.messages.map((message) => message.code)).size).toBe(1);
  const last = answers.at(-1)?.body.requestId as string;
  expect((await verifyOtp(world.url, last, textedCode(world.upstream, phoneNumber))).status).toBe(200);
});
