import type { Socket } from 'node:net';
import { HttpService } from '@nestjs/axios';
import fc from 'fast-check';
import { StartMessagingClient } from '../../src/startmessaging/startmessaging.client';
import { UpstreamError } from '../../src/upstream/upstream.error';
import { HANG_MS } from '../support/hang';
import {
  hostileAnswers,
  isVerification,
  mayBlame,
  onTheWire,
  parsed,
  type HostileAnswer,
} from '../support/hostile-answers';
import { rawAnswer, startRawUpstream, type RawRequest, type RawUpstream } from '../support/raw-upstream';
import { redisOfWorker } from '../support/redis-of-worker';
import { figures, full } from '../support/scale';
import { freshNumber, sendOtp, startInstance, verifyOtp, type Instance } from '../support/world';

// Whatever upstream answers, no token is issued for a code that it did not verify. What is its one true answer says a
// reading of its own, with a parser of its own. A failure prints its seed: FC_SEED repeats it.

const ANSWERS = full ? 100_000 : 2_000;
const SENDS = full ? 10_000 : 500;
/** Of the answers, those over the whole service. */
const LOGINS = full ? 400 : 80;
const AT_ONCE = 40;

const seed = process.env.FC_SEED === undefined ? {} : { seed: Number(process.env.FC_SEED) };
const tally = { answers: 0, right: 0, tokens: 0 };

let upstream: RawUpstream;
/** What is answered next, by the id of the OTP request; anything else is a send that is accepted. */
const answers = new Map<string, HostileAnswer>();

function respond(socket: Socket, { body }: RawRequest): void {
  const { requestId, phoneNumber, idempotencyKey } = JSON.parse(body) as Record<string, string>;
  const answer = answers.get(requestId ?? '') ?? answers.get(idempotencyKey ?? '');
  // Upstream's name for the OTP request: the number without what makes it one.
  const sent = rawAnswer(JSON.stringify({ data: { requestId: `of-${phoneNumber?.slice(5)}` } }));
  socket.end(answer ? onTheWire(answer) : sent);
}

beforeAll(async () => {
  upstream = await startRawUpstream(respond);
});
afterAll(async () => {
  await upstream.close();
  figures(`hostile answers ${tally.answers}, tokens ${tally.tokens}`);
});

/** A new one for every batch, so that none is judged by the answers that another got. */
const client = (): StartMessagingClient =>
  new StartMessagingClient(new HttpService(), {
    baseUrl: upstream.url,
    apiKey: 'sm_live_x',
    appName: 'otp-login',
    timeoutMs: HANG_MS,
    connectTimeoutMs: HANG_MS,
    retryDelayMs: 1,
    maxAttempts: 1,
    deadlineMs: HANG_MS,
  });

const told = ({ status, headers, framing, body }: HostileAnswer): string =>
  JSON.stringify({ status, headers, framing, body: body.toString('latin1').slice(0, 500) });

/** Every answer of a batch is given at once to one client, and judged. */
const batches = (count: number, judge: (answer: HostileAnswer, id: string) => Promise<string | undefined>) =>
  fc.assert(
    fc.asyncProperty(fc.array(hostileAnswers, { minLength: AT_ONCE, maxLength: AT_ONCE }), async (batch) => {
      const faults = await Promise.all(
        batch.map(async (answer, i) => {
          answers.set(`r${i}`, answer);
          const fault = await judge(answer, `r${i}`);
          return fault === undefined ? [] : [`${fault}: ${told(answer)}`];
        }),
      );
      expect(faults.flat()).toEqual([]);
    }),
    // Each answer of a batch is judged alone and told alone, so there is nothing to shrink.
    {
      numRuns: Math.ceil(count / AT_ONCE),
      endOnFailure: true,
      reporter: ({ failed, seed: used, errorInstance }) => {
        if (failed) throw new Error(`FC_SEED=${used}: ${String(errorInstance)}`);
      },
      ...seed,
    },
  );

async function verdict(call: Promise<{ verified: boolean }>): Promise<'right' | 'wrong' | UpstreamError> {
  try {
    return (await call).verified ? 'right' : 'wrong';
  } catch (error) {
    if (error instanceof UpstreamError) return error;
    throw error;
  }
}

describe('an answer to a verification', () => {
  it(
    'a verification succeeds when the response of upstream is the one true answer, and never otherwise',
    async () => {
      let current = client();
      await batches(ANSWERS - LOGINS, async (answer, id) => {
        if (id === 'r0') current = client();
        const worth = isVerification(answer);
        const came = await verdict(current.verifyOtp({ requestId: id, code: '123456' }));
        tally.answers += 1;
        if (worth === 'yes') tally.right += 1;
        if (came === 'right' && worth === 'no') {
          tally.tokens += 1;
          return 'taken for a right code';
        }
        if (worth === 'yes' && came !== 'right') return 'a right code that is not taken for one';
        return came === 'wrong' && !mayBlame(answer) ? 'blamed on a person' : undefined;
      });
      // Had nothing been right, nothing could have been taken for it.
      expect(tally.right).toBeGreaterThan(ANSWERS / 50);
    },
    full ? 1_200_000 : 300_000,
  );

  it('the service opens no session unless the response of upstream is the one true answer', async () => {
    const redis = await redisOfWorker();
    const service: Instance = await startInstance({
      REDIS_URL: redis.url,
      STARTMESSAGING_BASE_URL: upstream.url,
      STARTMESSAGING_CONTRACT: 'provider',
    });
    const logIn = async (answer: HostileAnswer) => {
      const phoneNumber = freshNumber();
      const sent = await sendOtp(service.url, phoneNumber);
      answers.set(`of-${phoneNumber.slice(5)}`, answer);
      return verifyOtp(service.url, sent.body.requestId, '123456');
    };
    try {
      const body = Buffer.from('{"data":{"verified":true}}');
      const good = await logIn({ status: 200, headers: [], framing: 'length', body });
      expect([good.status, typeof good.body.accessToken]).toEqual([200, 'string']);
      await fc.assert(
        fc.asyncProperty(hostileAnswers, async (answer) => {
          const came = await logIn(answer);
          tally.answers += 1;
          const token = came.status < 300 || JSON.stringify(came.body).includes('oken":');
          if (token && isVerification(answer) === 'no') tally.tokens += 1;
          if (isVerification(answer) === 'no') expect([token, told(answer)]).toEqual([false, told(answer)]);
          if (came.body.code === 'otp_incorrect') expect(mayBlame(answer)).toBe(true);
          // A trouble of upstream's is never a log-out.
          expect(came.status).not.toBe(401);
        }),
        { numRuns: LOGINS, ...seed },
      );
    } finally {
      await service.close();
    }
  }, 300_000);
});

describe('an answer to a send', () => {
  it.each(['sendCode', 'sendOtp'] as const)(
    'a send is reported as not sent only when the response of upstream is a refusal: %s',
    async (verb) => {
      let current = client();
      await batches(SENDS, async (answer, id) => {
        if (id === 'r0') current = client();
        const request = { phoneNumber: '+919876543210', idempotencyKey: id };
        const call =
          verb === 'sendOtp'
            ? current.sendOtp(request)
            : current.sendCode({ ...request, code: '123456', expiryMinutes: 5 });
        const error = await call.then(
          () => undefined,
          (thrown: unknown) => thrown as UpstreamError,
        );
        if (error === undefined) {
          const accepted = answer.status >= 200 && answer.status < 300;
          return accepted ? undefined : 'taken for an acceptance';
        }
        if (error.accepted === 'unknown') return undefined;
        if (answer.status === 409) return 'a duplicate is not nothing';
        if ((answer.status >= 300 && answer.status < 500) || answer.status === 503) return undefined;
        // Beside those only a code of the table says so, and nothing that was accepted beside it.
        const body = parsed(answer.body);
        const said = body instanceof Map ? (body as Map<string, unknown>) : new Map<string, unknown>();
        const withData = answer.status < 300 && said.get('data') instanceof Map;
        return said.get('error') instanceof Map && !withData ? undefined : 'taken for a refusal';
      });
    },
    full ? 600_000 : 300_000,
  );
});
