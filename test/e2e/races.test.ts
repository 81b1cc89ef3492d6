import { atOnce, tally } from '../support/crowd';
import {
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  wrongCode,
  type World,
} from '../support/world';

let world: World;

const messagesTo = (phoneNumber: string) =>
  world.upstream.messages.filter((sent) => sent.phoneNumber === phoneNumber);

describe.each(['caller', 'provider'] as const)('three instances under the %s contract', (contract) => {
  beforeAll(async () => {
    world = await startWorld({
      variables: { STARTMESSAGING_CONTRACT: contract, LIMIT_PHONE: '5/600' },
      count: 3,
    });
  });
  afterAll(() => world.close());

  it(`100 sends at once to a number with a limit of 5 are exactly 5 SMS under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const before = world.upstream.calls.length;
    const answers = await atOnce(world, 100, (url) => sendOtp(url, phoneNumber));
    expect(tally(answers)).toEqual({ '200': 5, '429 rate_limited': 95 });
    expect(messagesTo(phoneNumber)).toHaveLength(5);
    expect(world.upstream.calls).toHaveLength(before + 5);
  });

  it(`60 verifications at once with the right code open one session under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = textedCode(world.upstream, phoneNumber);
    const answers = await atOnce(world, 60, (url) => verifyOtp(url, body.requestId, code));
    expect(tally(answers)['200']).toBe(1);
    expect(
      answers.every(({ status, body: answer }) => status === 200 || answer.code.startsWith('otp_')),
    ).toBe(true);
  });

  it(`60 verifications at once with a wrong code use up three attempts under the ${contract} contract`, async () => {
    const phoneNumber = freshNumber();
    const { body } = await sendOtp(world.url, phoneNumber);
    const code = wrongCode(textedCode(world.upstream, phoneNumber));
    const before = world.upstream.calls.length;
    const answers = await atOnce(world, 60, (url) => verifyOtp(url, body.requestId, code));
    expect(tally(answers)).toEqual({ '400 otp_incorrect': 3, '410 otp_attempts_exhausted': 57 });
    expect(world.upstream.calls.length - before).toBe(contract === 'provider' ? 3 : 0);
    expect(
      answers
        .filter(({ status }) => status === 400)
        .map((answer) => answer.body.attemptsLeft as number)
        .sort(),
    ).toEqual([0, 1, 2]);
  });
});

it('of 100 sends at once over three instances, LIMIT_IP admits 40, and the budget pays for exactly 20 of them', async () => {
  world = await startWorld({
    variables: { LIMIT_IP: '40/600', BUDGET_PAISE_PER_HOUR: '500', STARTMESSAGING_CONTRACT: 'caller' },
    count: 3,
  });
  try {
    const answers = await atOnce(world, 100, (url) => sendOtp(url, freshNumber()));
    expect(tally(answers)).toEqual({ '200': 20, '503 sms_unavailable': 20, '429 rate_limited': 60 });
    expect(world.upstream.messages).toHaveLength(20);
  } finally {
    await world.close();
  }
});

it('resends at once over three instances all contain the same code, and the code works', async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'caller' }, count: 3 });
  try {
    const phoneNumber = freshNumber();
    const answers = await atOnce(world, 30, (url) => sendOtp(url, phoneNumber));
    expect(tally(answers)).toEqual({ '200': 30 });
    expect(new Set(world.upstream.messages.map((message) => message.code)).size).toBe(1);
    const last = answers.at(-1)?.body.requestId as string;
    expect((await verifyOtp(world.url, last, textedCode(world.upstream, phoneNumber))).status).toBe(200);
  } finally {
    await world.close();
  }
});
