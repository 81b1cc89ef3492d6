import { once } from 'node:events';
import http2 from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import tls from 'node:tls';
import { selfSignedCertificate } from '../support/certificate';
import { until } from '../support/hang';
import { CODE, patientClient, RIGHT, verify, WRONG } from '../support/hostile-client';
import { rawAnswer, startRawUpstream } from '../support/raw-upstream';

const cleanUps: (() => unknown)[] = [];

afterEach(async () => {
  jest.restoreAllMocks();
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const SENT = '{"success":true,"data":{"otpRequestId":"a","requestId":"a"}}';

const send = (client: ReturnType<typeof patientClient>): Promise<unknown> =>
  client.sendCode({ phoneNumber: '+919876543210', code: CODE, expiryMinutes: 5, idempotencyKey: 'key' }).then(
    ({ id }) => id,
    (error: unknown) => (error as { reason: string }).reason,
  );

type Respond = (stream: http2.ServerHttp2Stream, body: string, path: string) => void;

/** A server of HTTP/2 whose certificate the client trusts. */
async function http2Upstream(respond: Respond) {
  const certificate = selfSignedCertificate();
  const sockets = new Set<Socket>();
  const seen = { connections: 0, requests: 0 };
  const server = http2.createSecureServer(certificate);
  server.on('secureConnection', (socket: Socket) => {
    seen.connections += 1;
    sockets.add(socket.on('close', () => sockets.delete(socket)));
  });
  server.on('stream', (stream, headers) => {
    let body = '';
    stream.on('error', () => undefined);
    stream.setEncoding('utf8').on('data', (text: string) => (body += text));
    stream.on('end', () => {
      seen.requests += 1;
      respond(stream, body, String(headers[':path']));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUps.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  const { connect } = tls;
  jest
    .spyOn(tls, 'connect')
    .mockImplementation(((given: tls.ConnectionOptions) =>
      connect({ ...given, ca: certificate.cert })) as typeof tls.connect);
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, seen, sockets };
}

describe('over HTTP/1.1', () => {
  test('sends of our own codes share a connection one after another, and each verification has its own', async () => {
    const upstream = await startRawUpstream((socket, { path }) => {
      socket.write(rawAnswer(path === '/otp/verify' ? RIGHT : SENT));
    });
    cleanUps.push(() => upstream.close());
    const { url, seen, open } = upstream;
    const client = patientClient(url);
    for (let i = 0; i < 3; i++) expect(await send(client)).toBe('a');
    expect(seen).toEqual({ connections: 1, requests: 3 });
    for (let i = 0; i < 3; i++) expect(await verify(client)).toBe('right');
    expect(seen).toEqual({ connections: 4, requests: 6 });
    await until(() => open.size === 0);
  });

  test('a send after the server closed the kept connection goes over a new one', async () => {
    const upstream = await startRawUpstream((socket) => {
      socket.end(rawAnswer(SENT));
    });
    cleanUps.push(() => upstream.close());
    const { url, seen, open } = upstream;
    const client = patientClient(url);
    expect(await send(client)).toBe('a');
    await until(() => open.size === 0);
    expect(await send(client)).toBe('a');
    expect(seen).toEqual({ connections: 2, requests: 2 });
  });
});

describe('over HTTP/2', () => {
  test('calls at once share a connection, and each gets the answer to its own request', async () => {
    const waiting: (() => void)[] = [];
    const { url, seen } = await http2Upstream((stream, body) => {
      const right = (JSON.parse(body) as { requestId: string }).requestId === 'right';
      waiting.push(() => {
        stream.respond({ ':status': 200 });
        stream.end(right ? RIGHT : WRONG);
      });
      // The answers come in the opposite order of the requests.
      if (waiting.length === 1 + 8) for (const answer of waiting.splice(1).reverse()) answer();
      else if (seen.requests === 1) waiting[0]!();
    });
    const client = patientClient(url);
    const check = (requestId: string) => client.verifyOtp({ requestId, code: CODE });
    expect(await check('right')).toEqual({ verified: true });
    const ids = Array.from({ length: 8 }, (_, i) => (i % 3 === 0 ? 'right' : 'wrong'));
    const answers = await Promise.all(ids.map(check));
    expect(answers.map(({ verified }) => (verified ? 'right' : 'wrong'))).toEqual(ids);
    expect(seen).toEqual({ connections: 1, requests: 9 });
  });

  test('a stream that the server refused was never processed, so a send is repeated over it', async () => {
    const { url, seen } = await http2Upstream((stream) => {
      if (seen.requests === 1) {
        stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
        return;
      }
      stream.respond({ ':status': 201 });
      stream.end(SENT);
    });
    expect(await send(patientClient(url, { maxAttempts: 2 }))).toBe('a');
    expect(seen.requests).toBe(2);
  });

  test.each<[string, Respond]>([
    [
      'a body shorter than announced',
      (stream) => {
        stream.respond({ ':status': 200, 'content-length': '1000' });
        stream.end(RIGHT);
      },
    ],
    [
      'the end of the connection behind a head',
      (stream) => {
        stream.respond({ ':status': 200 });
        stream.write(RIGHT, () => stream.session?.destroy());
      },
    ],
    [
      'a reset in place of an answer',
      (stream) => {
        stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
      },
    ],
    ['the end of the connection', (stream) => stream.session?.destroy()],
    [
      'more than 64 KB',
      (stream) => {
        stream.respond({ ':status': 200 });
        stream.end(RIGHT + ' '.repeat(70_000));
      },
    ],
    [
      'a packed body',
      (stream) => {
        stream.respond({ ':status': 200, 'content-encoding': 'gzip' });
        stream.end(RIGHT);
      },
    ],
  ])('a verification that meets %s fails and confirms no code', async (_name, respond) => {
    const { url, seen } = await http2Upstream(respond);
    expect(await verify(patientClient(url))).toBe('failed');
    expect(seen.requests).toBe(1);
  });

  test('a call after the server said goodbye goes over a new connection', async () => {
    const { url, seen, sockets } = await http2Upstream((stream) => {
      stream.respond({ ':status': 200 });
      stream.end(RIGHT);
      stream.session?.close();
    });
    const client = patientClient(url);
    expect(await verify(client)).toBe('right');
    await until(() => sockets.size === 0);
    expect(await verify(client)).toBe('right');
    expect(seen).toEqual({ connections: 2, requests: 2 });
  });
});
