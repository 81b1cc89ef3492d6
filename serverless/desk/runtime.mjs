// A local AWS Lambda: a Runtime API for each instance, a Function URL in front of them, and the freezer. An instance serves one
// request at a time, and is stopped between requests (SIGSTOP), as Lambda freezes it.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

const TIMEOUT_MS = 30_000;

/** Listens on a free port of the loopback address. Resolves to the port. */
export function listen(server, port = 0) {
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, '127.0.0.1', () => resolve(server.address().port));
  });
}

export async function readBody(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** One process of the function. */
class Instance {
  constructor({ command, environment, skewMs, log }) {
    this.frozen = false;
    this.waiting = undefined;
    this.job = undefined;
    this.server = createServer((request, response) => void this.serve(request, response));
    this.started = listen(this.server).then((port) => {
      const [program, ...args] = command;
      this.process = spawn(program, args, {
        env: { ...environment, AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${port}`, DESK_SKEW_MS: String(skewMs) },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      for (const stream of [this.process.stdout, this.process.stderr]) stream.on('data', log);
      this.process.once('exit', () => {
        this.gone = true;
        this.job?.fail();
        this.server.close();
      });
    });
  }

  get free() {
    return !this.gone && this.job === undefined;
  }

  /** Runs one event. Resolves to the response of the handler, or to undefined if the function failed. */
  run(event) {
    return new Promise((resolve) => {
      const id = randomUUID();
      const end = (answer) => {
        clearTimeout(timer);
        this.job = undefined;
        resolve(answer);
      };
      const timer = setTimeout(() => end(undefined), TIMEOUT_MS);
      this.job = { id, event, end, fail: () => end(undefined) };
      this.deliver();
    });
  }

  deliver() {
    if (this.waiting === undefined || this.job === undefined) return;
    if (this.frozen) this.process.kill('SIGCONT');
    this.frozen = false;
    const headers = {
      'Content-Type': 'application/json',
      'Lambda-Runtime-Aws-Request-Id': this.job.id,
      'Lambda-Runtime-Deadline-Ms': String(Date.now() + TIMEOUT_MS),
      'Lambda-Runtime-Invoked-Function-Arn': 'arn:aws:lambda:ap-south-1:000000000000:function:otp-login',
    };
    this.waiting.writeHead(200, headers).end(JSON.stringify(this.job.event));
    this.waiting = undefined;
  }

  async serve(request, response) {
    const [, action] = /\/runtime\/(.*)$/.exec(request.url) ?? [];
    const body = await readBody(request);
    if (action === 'invocation/next') {
      this.waiting = response;
      if (this.job !== undefined) return this.deliver();
      this.process.kill('SIGSTOP');
      this.frozen = true;
      return;
    }
    response.writeHead(202).end('{"status":"OK"}');
    if (action?.endsWith('/response')) this.job?.end(JSON.parse(body.toString()));
    else this.job?.fail();
  }

  kill() {
    this.gone = true;
    this.process?.kill('SIGKILL');
  }
}

/** Serves HTTP by at most `most` instances, and starts them as Lambda does: one for each concurrent request. */
export class Lambda {
  constructor(options) {
    this.options = options;
    this.instances = [];
    this.queue = [];
    this.server = createServer((request, response) => void this.serve(request, response));
  }

  async serve(request, response) {
    const answer = await this.invoke(eventOf(request, await readBody(request)));
    if (answer === undefined) {
      response
        .writeHead(502, { 'Content-Type': 'application/json' })
        .end('{"message":"Internal Server Error"}');
      return;
    }
    const { statusCode = 200, headers = {}, cookies = [], body = '', isBase64Encoded } = answer;
    response.writeHead(statusCode, { ...headers, ...(cookies.length > 0 ? { 'set-cookie': cookies } : {}) });
    response.end(isBase64Encoded ? Buffer.from(body, 'base64') : body);
  }

  async invoke(event) {
    const instance = await this.take();
    const answer = await instance.run(event);
    this.queue.shift()?.();
    return answer;
  }

  async take() {
    for (;;) {
      this.instances = this.instances.filter(({ gone }) => !gone);
      const free = this.instances.find((instance) => instance.free);
      if (free !== undefined) return free;
      if (this.instances.length < this.options.most) {
        const skewMs = this.instances.length % 2 === 1 ? (this.options.skewMs ?? 0) : 0;
        const instance = new Instance({ ...this.options, skewMs });
        instance.job = { fail() {} };
        this.instances.push(instance);
        await instance.started;
        return instance;
      }
      await new Promise((resolve) => this.queue.push(resolve));
    }
  }

  /** Removes every instance, as Lambda does at any time between two requests. */
  removeAll() {
    for (const instance of this.instances) instance.kill();
  }
}

/** The event of a Function URL: payload format 2.0. */
function eventOf(request, body) {
  const { pathname, search } = new URL(request.url, 'http://localhost');
  const { cookie, 'x-desk-source-ip': sourceIp = '127.0.0.1', ...headers } = request.headers;
  return {
    version: '2.0',
    routeKey: '$default',
    rawPath: pathname,
    rawQueryString: search.slice(1),
    headers,
    ...(cookie === undefined ? {} : { cookies: cookie.split('; ') }),
    ...(search === '' ? {} : { queryStringParameters: Object.fromEntries(new URLSearchParams(search)) }),
    requestContext: {
      domainName: headers.host,
      http: { method: request.method, path: pathname, protocol: 'HTTP/1.1', sourceIp, userAgent: '' },
      stage: '$default',
    },
    ...(body.length === 0 ? {} : { body: body.toString('base64') }),
    isBase64Encoded: body.length > 0,
  };
}
