import { startEmulator } from './emulator';

async function main(): Promise<void> {
  // It shows every code to every visitor of its page.
  if (process.env.NODE_ENV === 'production')
    throw new Error('The emulator does not run with NODE_ENV=production.');
  const host = setting('EMULATOR_HOST', '127.0.0.1');
  const port = Number(setting('EMULATOR_PORT', '3001'));
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new Error('EMULATOR_PORT is not a port.');
  const service = setting('SERVICE_URL', 'http://localhost:3000');
  if (!/^https?:\/\//.test(service) || !URL.canParse(service))
    throw new Error('SERVICE_URL is not the http or https address of the service.');
  const emulator = await startEmulator({
    host,
    port,
    serviceOrigin: new URL(service).origin,
    onStartOver: startOver,
  }).catch((error: unknown) => {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') throw new Error(`Port ${port} is taken; set EMULATOR_PORT to another one.`);
    if (code === 'EACCES')
      throw new Error(`This user may not listen on port ${port}; set EMULATOR_PORT to another one.`);
    if (syscall === 'listen' || syscall === 'getaddrinfo')
      throw new Error(`EMULATOR_HOST is no address of this machine (${code}).`);
    throw error;
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      void emulator.close().then(() => process.exit(0));
    });
  }
  console.log(`StartMessaging emulator: the phone inbox is at ${emulator.url}/`);
}

/** The demo restarts the service, so that its limits start over, too. Without the demo there is nothing to wait for. */
function startOver(): Promise<void> {
  if (!process.send || !process.connected) return Promise.resolve();
  return new Promise((resolve) => {
    process.once('message', () => {
      resolve();
    });
    process.send?.('start over');
  });
}

// An empty variable is an unset one, as for the service.
function setting(name: string, fallback: string): string {
  const value = process.env[name];
  return value === undefined || value === '' ? fallback : value;
}

main().catch((error: unknown) => {
  console.error((error as Error).message);
  process.exit(1);
});
