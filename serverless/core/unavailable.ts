import { ConfigError } from '../../src/config/settings';
import { ApiError } from '../../src/errors/api-error';
import { problemBody } from '../../src/http/problem';
import { log } from './log';

/** The answer while the settings have faults. The log names every fault together; the caller gets no details. */
export function unavailable(error: unknown): Response {
  const faults = error instanceof ConfigError ? error.faults : undefined;
  if (faults === undefined) log('error', 'The edition could not start', { error });
  else log('error', `The settings have faults: ${faults.join('; ')}`, { faults });
  const problem = new ApiError('internal_error');
  const headers = { 'Content-Type': 'application/problem+json; charset=utf-8', 'Cache-Control': 'no-store' };
  return new Response(JSON.stringify(problemBody(problem)), { status: problem.status, headers });
}
