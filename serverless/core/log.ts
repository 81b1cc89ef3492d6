import { redact } from '../../src/logging/redact';

type Level = 'info' | 'warn' | 'error';

/**
 * Writes one line of JSON. Every text passes the patterns of the service's log: no phone number, code, token or API key
 * appears. An error is named by its class and message, because its other fields may hold a request.
 */
export function log(level: Level, message: string, fields: Record<string, unknown> = {}): void {
  const told = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]): [string, unknown] => [name, value instanceof Error ? describe(value) : value]);
  const line = { time: new Date().toISOString(), level, message, ...Object.fromEntries<unknown>(told) };
  console.log(redact(JSON.stringify(line)));
}

function describe({ name, message }: Error): object {
  return { name, message: message.slice(0, 500) };
}
