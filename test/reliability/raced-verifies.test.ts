import { rmSync } from 'node:fs';
import { as, atOnce, signingKeys, tally } from '../support/crowd';
import { insist } from '../support/person';
import { figures, full } from '../support/scale';
import {
  call,
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  type Answer,
  type World,
} from '../support/world';

const RACES = full ? 50 : 3;
const AT_ONCE = 200;

let world: World;
const JWT_KEYS_DIR = signingKeys();
afterEach(() => world.close());
afterAll(() => {
  rmSync(JWT_KEYS_DIR, { recursive: true });
});

it.each(['caller', 'provider'] as const)(
  'two hundred verifications of one code at once open one session (%s)',
  async (contract) => {
    const variables = {
      JWT_KEYS_DIR,
      STARTMESSAGING_CONTRACT: contract,
    };
    world = await startWorld({ variables, count: 3 });
    const most = { logins: 0, sessions: 0 };
    for (let races = 0; races < RACES;) {
      const phoneNumber = freshNumber();
      const { body } = await sendOtp(world.url, phoneNumber);
      const code = textedCode(world.upstream, phoneNumber);
      const answers = await atOnce(world, AT_ONCE, (url) => verifyOtp(url, body.requestId, code));
      const right = answers.filter(({ status }) => status === 200);
      // 503: a machine that is busy with other tests was too late with a step, or had too much to do.
      const counts = tally(answers);
      expect(Object.keys(counts).filter((outcome) => !/^(200|410 otp_|503 )/.test(outcome))).toEqual([]);
      expect(right.length).toBeLessThanOrEqual(1);
      // The one that won may be among those; it is no race then.
      if (right.length === 0 && Object.keys(counts).some((outcome) => outcome.startsWith('503'))) continue;
      expect(right).toHaveLength(1);
      races += 1;
      const list = (): Promise<Answer> =>
        call('GET', `${world.url}/auth/sessions`, undefined, as(right[0]?.body.accessToken));
      const listed = await insist(list);
      expect(listed.status).toBe(200);
      most.logins = Math.max(most.logins, right.length);
      most.sessions = Math.max(most.sessions, listed.body.sessions.length as number);
    }
    figures(
      `raced verifies (${contract}): at once ${AT_ONCE}, races ${RACES}, sessions ${most.sessions} each`,
    );
    expect(most).toEqual({ logins: 1, sessions: 1 });
  },
  full ? 600_000 : 300_000,
);
