// What the benches share: a real Redis, the emulator and the built service in one process.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { startRedis } from '../scripts/children.mjs';
import { prepare, ROOT } from '../scripts/project.mjs';

prepare();

const require = createRequire(import.meta.url);
/** A module of the build: `dist('otp/otp.service')`. */
export const dist = (path) => require(join(ROOT, 'dist', `${path}.js`));
/** Who asks for and brings codes. */
export const ASKER = { address: '127.0.0.1' };

/** Starts all three, with nothing limited. They end with this process. */
export async function startWorld(settings = {}) {
  require('reflect-metadata');
  const { port } = await startRedis('--appendonly', 'no');
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
  const { requestId } = await otp.request(phoneNumber, ASKER);
  const verified = await otp.verify(requestId, emulator.lastMessageTo(phoneNumber).code, ASKER);
  return app.get(dist('sessions/sessions.service').SessionsService).open(verified, client);
}
