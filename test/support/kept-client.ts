import { Agent, request as httpRequest } from 'node:http';

/** An answer; its body is JSON. */
export interface Said {
  status: number;
  // Tests look into bodies of many shapes.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  body: any;
}

/** A client with one kept connection, as an app or a backend has it; it repeats nothing. */
export class KeptClient {
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 1 });

  constructor(private readonly url: string) {}

  call(method: string, path: string, body?: object, more: Record<string, string> = {}): Promise<Said> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? '' : JSON.stringify(body);
      const headers = {
        ...(body === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
        ...more,
      };
      const asked = httpRequest(this.url + path, { method, headers, agent: this.agent }, (answer) => {
        let read = '';
        answer.setEncoding('utf8');
        answer.on('data', (chunk: string) => (read += chunk));
        answer.on('error', reject);
        answer.on('end', () => {
          resolve({ status: answer.statusCode ?? 0, body: read === '' ? undefined : JSON.parse(read) });
        });
      });
      asked.on('error', reject);
      asked.end(text);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}
