import type { Primary } from '../redis/primaries';
import { refusedRights } from '../redis/rights';

/** How long a primary may take to answer all questions together. */
const PATIENCE_MS = 2_000;

/** The fields of INFO by their names. */
export type Info = ReadonlyMap<string, string>;
/** That Redis does not allow a command: the first word of its error, such as NOPERM. */
export interface Refusal {
  readonly refused: string;
}

/** The answers of a primary about itself. */
export interface RedisAnswers {
  readonly name: string;
  readonly info: Info | Refusal;
  /** Whether the scripts of the service run, on its keys and with its commands. */
  readonly scripts: true | Refusal;
  /** Redis's clock minus this process's, beyond what the way there and back may account for. */
  readonly clockAheadMs: number | Refusal;
}

/** Whether Redis refused. */
export function isRefusal(answer: unknown): answer is Refusal {
  return typeof answer === 'object' && answer !== null && 'refused' in answer;
}

/**
 * Asks one primary about itself; INFO, because managed Redis forbids CONFIG. Changes nothing. Throws when no answer comes.
 *
 * @param now this process's clock, in milliseconds since 1970
 */
export async function askRedis(primary: Primary, now: () => number): Promise<RedisAnswers> {
  const { name, client } = primary;
  // The clock by itself: the way of a long answer is not the same there and back.
  const answers = async (): Promise<RedisAnswers> => ({
    name,
    clockAheadMs: await allowed(aheadMs(() => client.time(), now)),
    info: await allowed(client.info().then(readInfo)),
    scripts: await refusedRights(primary).then((refused) => (refused === undefined ? true : { refused })),
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error('no answer came in time'));
    }, PATIENCE_MS);
  });
  const answered = answers();
  // After the deadline, a failure must not become an unhandled rejection.
  answered.catch(() => undefined);
  return Promise.race([answered, late]).finally(() => {
    clearTimeout(timer);
  });
}

/** Redis's TIME is of a moment between question and answer: half of the way is taken off, the rest is doubt. */
async function aheadMs(time: () => Promise<(string | number)[]>, now: () => number): Promise<number> {
  const asked = now();
  const [seconds, microseconds] = await time();
  const answered = now();
  const ahead = Number(seconds) * 1_000 + Number(microseconds) / 1_000 - (asked + answered) / 2;
  return Math.sign(ahead) * Math.max(0, Math.abs(ahead) - (answered - asked) / 2);
}

export function readInfo(text: string): Info {
  const fields = text.split(/\r?\n/).map((line): [string, string] => {
    const colon = line.indexOf(':');
    return [line.slice(0, Math.max(0, colon)), line.slice(colon + 1)];
  });
  return new Map(fields.filter(([name]) => name !== '' && !name.startsWith('#')));
}

/** An error that Redis itself answered is an answer; that none came is not. */
async function allowed<Answer>(asked: Promise<Answer>): Promise<Answer | Refusal> {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'ReplyError') throw error;
    // The first word only: the rest may repeat what was sent.
    return { refused: /^[A-Z]+/.exec(error.message)?.[0] ?? 'an error' };
  }
}
