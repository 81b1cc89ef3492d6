import { ApiError } from '../../src/errors/api-error';

/** The error by which a call is refused; throws when it is not refused, or fails otherwise. */
export async function refusal(call: Promise<unknown>): Promise<ApiError> {
  const error: unknown = await call.then(
    (answer) => new Error(`It was not refused but answered ${JSON.stringify(answer)}`),
    (reason: unknown) => reason,
  );
  if (error instanceof ApiError) return error;
  throw error;
}

/** The code of the error by which a call is refused. */
export const refusalCode = async (call: Promise<unknown>): Promise<string> => (await refusal(call)).code;

/** How a call ends: `done`, or the code of the error by which it is refused. */
export const outcome = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'done',
    (error: unknown) => {
      if (error instanceof ApiError) return error.code;
      throw error;
    },
  );

/** How many calls end how. */
export async function outcomes(calls: readonly Promise<unknown>[]): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const ended of await Promise.all(calls.map(outcome))) counts[ended] = (counts[ended] ?? 0) + 1;
  return counts;
}
