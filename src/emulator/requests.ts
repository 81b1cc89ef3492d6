import type { IncomingMessage } from 'node:http';

const MOST_BYTES = 64 * 1024;

/** A request body over 64 KiB. */
export class BodyTooLarge extends Error {}

/**
 * Reads a body: JSON by its content type, else its text; `undefined` when it is empty. JSON that cannot be read
 * stays text.
 *
 * @throws BodyTooLarge once more than 64 KiB have come
 */
export async function readBody(request: IncomingMessage): Promise<unknown> {
  const text = await readText(request);
  if (text === '') return undefined;
  if (!isJson(request)) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

// By events, because leaving a `for await` early would destroy the socket that the 413 is to go through.
function readText(request: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= MOST_BYTES) chunks.push(chunk);
      else reject(new BodyTooLarge('The body is larger than 64 KiB'));
    });
    request.on('end', () => {
      resolve(Buffer.concat(chunks).toString());
    });
    request.on('error', reject);
  });
}

/** Whether the request says that its body is JSON. */
export function isJson(request: IncomingMessage): boolean {
  return /^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '');
}

/** Whether a server bound to this host is reached from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Whether the Host header names this machine by a name that no foreign DNS can resolve. */
export function isLocalRequest(request: IncomingMessage): boolean {
  return /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i.test(request.headers.host ?? '');
}
