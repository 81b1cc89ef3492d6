import { listPresets } from '../../src/emulator/presets';
import {
  freshNumber,
  sendOtp,
  startWorld,
  textedCode,
  verifyOtp,
  type Answer,
  type World,
} from '../support/world';

let world: World;
beforeAll(async () => {
  world = await startWorld({ variables: { STARTMESSAGING_CONTRACT: 'provider' } });
});
afterAll(() => world.close());

/** Each of them takes as long as the timeout of a call, or longer. */
const SLOW = ['timeout-before', 'timeout-after', 'slow', 'trickle', 'gzip-bomb'];

const told = ({ status, body }: Answer): string => `${status} ${String(body.code ?? '')}`.trim();

it.each(listPresets().filter(({ name }) => !SLOW.includes(name)))(
  'the second line of the button "$title" in the phone inbox tells the answer of the service',
  async ({ name, on, answers }) => {
    for (const operation of on as ('send' | 'verify')[]) {
      const phoneNumber = freshNumber();
      const sent = operation === 'verify' ? await sendOtp(world.url, phoneNumber) : undefined;
      world.upstream.fault({ on: operation, fault: name });
      const answer =
        sent === undefined
          ? await sendOtp(world.url, phoneNumber)
          : await verifyOtp(world.url, sent.body.requestId, textedCode(world.upstream, phoneNumber));
      const [stated] = answers[operation].split(',');
      expect([operation, told(answer)]).toEqual([operation, stated]);
      world.upstream.clearFaults();
    }
  },
);
