import type { DestinationStream } from 'pino';

/** Some thousands of lines. */
const MOST_WAITING_BYTES = 2 * 1024 * 1024;

/**
 * Where the log goes. A pipe that nobody reads (a log shipper that hangs) must not stop the service: by default Node waits
 * until the pipe takes the line, and the whole process with it. Here lines wait in memory instead, some megabytes of them,
 * and what is more is dropped, and told. A reader that is gone is no reason to end either.
 */
export function standardOutput(stdout: NodeJS.WriteStream = process.stdout): DestinationStream {
  // Node has no public way to say it. A file or a terminal has no such handle, or does not wait for anybody.
  if (!stdout.isTTY)
    (stdout as { _handle?: { setBlocking?: (blocking: boolean) => unknown } })._handle?.setBlocking?.(false);
  stdout.on('error', () => undefined);
  let dropped = 0;
  return {
    write(line: string): void {
      if (stdout.writableLength > MOST_WAITING_BYTES) {
        dropped += 1;
        return;
      }
      if (dropped > 0) {
        const told = { level: 'warn', time: new Date().toISOString(), dropped, msg: 'Nobody read the log' };
        stdout.write(`${JSON.stringify(told)}\n`);
        dropped = 0;
      }
      stdout.write(line);
    },
  };
}
