import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

// A script of the checkout, so Node.js runs it as it is.
const SCRIPT = pathToFileURL(join(__dirname, '../../scripts/demo-log.mjs')).href;

it('the demo shows one readable line for each call, and every fault', () => {
  const request = (fields: object): string =>
    JSON.stringify({ level: 'info', msg: 'request', durationMs: 31.2, ...fields });
  const lines: [line: string, shown: string | null][] = [
    [
      request({ method: 'POST', route: '/auth/verify-otp', status: 200 }),
      '  POST /auth/verify-otp 200 31 ms  code right, session opened',
    ],
    [
      request({ method: 'POST', route: '/auth/verify-otp', status: 400, code: 'otp_incorrect' }),
      '  POST /auth/verify-otp 400 31 ms  wrong code',
    ],
    [request({ method: 'GET', route: '/pages/*', status: 200 }), null],
    [JSON.stringify({ level: 'info', type: 'audit', audit: 'login' }), null],
    [JSON.stringify({ level: 'warn', msg: 'REDIS_URL is not set' }), null],
    [JSON.stringify({ level: 'error', msg: 'Redis command failed' }), '  error: Redis command failed'],
    ['StartMessaging emulator: the phone inbox is at http://127.0.0.1:3001/', null],
    ['Port 3000 is taken.', 'Port 3000 is taken.'],
  ];
  const program = `import { readableLine } from '${SCRIPT}';
    const lines = JSON.parse(process.argv[1]);
    console.log(JSON.stringify(lines.map((line) => readableLine(line) ?? null)));`;
  const given = JSON.stringify(lines.map(([line]) => line));
  const shown = execFileSync(process.execPath, ['--input-type=module', '-e', program, given], {
    encoding: 'utf8',
  });
  expect(JSON.parse(shown)).toEqual(lines.map(([, expected]) => expected));
});
