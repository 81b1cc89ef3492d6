import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Emulator } from '../../src/emulator/emulator';
import { withoutHang } from './hang';
import { service } from './service';
import { API_KEY, SECRET, SUBJECT_SECRET } from './world';

// The serverless edition as its runtimes run it: the Worker in workerd, and the Lambda function in AWS's own runtime client
// behind a local Runtime API that freezes it between requests. `npm run test:all` installs and builds the edition before.

export const EDITION = join(__dirname, '../../serverless');
export type Target = 'worker' | 'lambda';

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
export const JWT_KEY = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

/** Settings under which no limit is reached, so that a test names the limits that it is about. */
export const EDITION_SETTINGS = {
  STARTMESSAGING_API_KEY: API_KEY,
  STARTMESSAGING_CONTRACT: 'caller',
  SECRET,
  SUBJECT_SECRET,
  ISSUER: 'https://login.example.com',
  AUDIENCE: 'otp-login',
  JWT_KEY,
  UPSTREAM_RETRY_DELAY_MS: '5',
  LIMIT_PHONE: '1000/60',
  LIMIT_IP: '100000/60',
  LIMIT_VERIFY_IP: '100000/60',
  LIMIT_GLOBAL: '100000/1',
  LIMIT_FAILED_CODES: '1000/3600',
  BUDGET_PAISE_PER_DAY: '1000000',
  TEST_NUMBERS: `+910123456789:246810:${new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, 10)}`,
};

/** A running target, and the emulator that it sends through. */
export interface RunningEdition {
  target: Target;
  url: string;
  upstream: Emulator;
  /** Of workerd. */
  pid: number;
  /** Where workerd keeps its documents. */
  folder: string;
  /** Everything that the target wrote to its log. */
  logs(): Promise<string>;
  /** One command to the desk of the Lambda function: see serverless/desk/lambda.mjs. */
  desk(path: string, body?: object): Promise<unknown>;
  close(): Promise<void>;
}

/** Node.js 22.12 or newer, which the edition needs. */
function node(script: string): [program: string, args: string[]] {
  const [major = 0] = process.versions.node.split('.').map(Number);
  if (major >= 23) return [process.execPath, [script]];
  return ['npx', ['--yes', '--ignore-scripts=false', 'node@24', script]];
}

export async function startEdition(
  target: Target,
  settings: Record<string, string | undefined> = {},
  environment: Record<string, string> = {},
): Promise<RunningEdition> {
  if (!existsSync(join(EDITION, 'dist', `${target}.js`))) {
    throw new Error('The serverless edition is not built: run npm run test:all -- test/serverless');
  }
  const upstream = await service().startEmulator();
  const all = { ...EDITION_SETTINGS, STARTMESSAGING_BASE_URL: upstream.url, ...settings };
  const [program, args] = node(join(EDITION, 'desk', `${target}.mjs`));
  const child = spawn(program, args, {
    env: { ...process.env, DESK_SETTINGS: JSON.stringify(all), ...environment },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let written = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (written += String(chunk)));
  const desk = await withoutHang(firstLine(child), `the start of the ${target}: ${written}`);
  return {
    ...{ target, upstream, url: desk.url, pid: desk.pid ?? 0, folder: desk.folder ?? '' },
    logs: async () =>
      desk.control === undefined
        ? written
        : ((await (await fetch(`${desk.control}/logs`)).json()) as string[]).join(''),
    desk: async (path, body = {}) => {
      const init = { method: 'POST', body: JSON.stringify(body) };
      return (await fetch(`${desk.control}${path}`, init)).json();
    },
    close: async () => {
      const gone = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined;
      child.stdin.end();
      await withoutHang(Promise.all([gone, upstream.close()]), `the end of the ${target}`);
    },
  };
}

interface Desk {
  url: string;
  control?: string;
  pid?: number;
  folder?: string;
}

/** The line that the desk prints when the target is ready. */
async function firstLine(child: ChildProcess): Promise<Desk> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout! })) {
    if (line.startsWith('{"url":')) return JSON.parse(line) as Desk;
    lines.push(line);
  }
  throw new Error(`The desk ended by itself: ${lines.join('\n')}`);
}
