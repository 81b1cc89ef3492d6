import type { Environment } from './settings';

/**
 * The token that an operator's tool calls a running service with, of the variable ADMIN_TOKEN: as an argument it would
 * stand in the list of processes. No setting of the service, which knows ADMIN_TOKENS.
 */
export function operatorToken(environment: Environment = process.env): string | undefined {
  // fetch would repeat an invalid header value in its error.
  const token = environment.ADMIN_TOKEN?.trim() ?? '';
  return /^[!-~]+$/.test(token) ? token : undefined;
}
