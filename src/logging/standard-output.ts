import type { DestinationStream } from 'pino';

/** Some thousands of lines. */
const MOST_WAITING_BYTES = 2 * 1024 * 1024;

/**
 * The stream of the log. A pipe without a reader (a log shipper that hangs) must not stop the service: by default Node and the
 * whole process wait until the pipe takes the line. Here some megabytes of lines wait in memory instead; further lines are
 * dropped, and the log says so. The end of the reader does not end the process either.
 */
export function standardOutput(stdout: NodeJS.WriteStream = process.stdout): DestinationStream {
  // Node has no public API for this. A file or a terminal has no such handle, or does not block.
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
        const told = {
          level: 'warn',
          time: new Date().toISOString(),
          dropped,
          msg: 'Log lines dropped: stdout was blocked',
        };
        stdout.write(`${JSON.stringify(told)}\n`);
        dropped = 0;
      }
      stdout.write(line);
    },
  };
}
