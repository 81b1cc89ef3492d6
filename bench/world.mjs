// What the benches share: a real Redis, the emulator and the built service in one process.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { build, checkNode, freePort, giveUp, installPackages, ROOT } from '../scripts/project.mjs';

checkNode();
installPackages();
build();

const require = createRequire(import.meta.url);
/** A module of the build: `dist('otp/otp.service')`. */
export const dist = (path) => require(join(ROOT, 'dist', `${path}.js`));

/** Starts all three, with nothing limited. The Redis ends with this process. */
export async function startWorld(settings = {}) {
  require('reflect-metadata');
  const port = await freePort();
  const redis = spawn('redis-server', ['--port', String(port), '--save', '', '--appendonly', 'no'], {
    stdio: 'pipe',
  });
  redis.on('error', () => giveUp('redis-server is not installed: `npm test` installs it on Debian.'));
  process.on('exit', () => redis.kill('SIGKILL'));
  for await (const chunk of redis.stdout) if (String(chunk).includes('Ready to accept')) break;
  const emulator = await dist('emulator/emulator').startEmulator();
  emulator.settings.balance = 1e9;
  const app = await dist('app').createApp({
    environment: {
      NODE_ENV: 'test',
      LOG_LEVEL: 'silent',
      REDIS_URL: `redis://127.0.0.1:${port}`,
      STARTMESSAGING_API_KEY: `sm_live_${'0'.repeat(40)}`,
      STARTMESSAGING_BASE_URL: emulator.url,
      STARTMESSAGING_CONTRACT: 'caller',
      LIMIT_GLOBAL: '1000000/1',
      ...settings,
    },
    logs: new Writable({ write: (_chunk, _encoding, done) => done() }),
  });
  await app.init();
  const { Redis } = require('ioredis');
  const client = new Redis(port);
  await client.ping();
  return { app, emulator, client };
}

/** A session by the only way there is: a code that was sent and came back. */
export async function login({ app, emulator }, phoneNumber, client) {
  const otp = app.get(dist('otp/otp.service').OtpService);
  const { requestId } = await otp.request(phoneNumber);
  const verified = await otp.verify(requestId, emulator.lastMessageTo(phoneNumber).code);
  return app.get(dist('sessions/sessions.service').SessionsService).open(verified, client);
}
