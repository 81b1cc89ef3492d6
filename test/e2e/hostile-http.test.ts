import type { Server } from 'node:http';
import { connect } from 'node:net';
import fc from 'fast-check';
import { withoutHang } from '../support/hang';
import { call, freshNumber, sendOtp, startWorld, statusAndCode, type World } from '../support/world';

let world: World;

beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world.close());
afterEach(() => {
  world.upstream.reset();
});

/** Writes raw bytes, and resolves with what came back when the server has closed the connection. */
function raw(bytes: string | Buffer, keepWriting?: () => Buffer): Promise<{ text: string; written: number }> {
  const { port } = new URL(world.url);
  const answered = new Promise<{ text: string; written: number }>((resolve) => {
    const socket = connect(Number(port), '127.0.0.1');
    let text = '';
    let written = 0;
    let ended = false;
    const finish = (): void => {
      ended = true;
      socket.destroy();
      resolve({ text, written });
    };
    socket.on('data', (chunk) => (text += chunk.toString('latin1')));
    socket.on('error', finish);
    socket.on('close', finish);
    socket.on('connect', () => {
      socket.write(bytes);
      const more = (): void => {
        while (keepWriting && !ended && written < 50_000_000) {
          const chunk = keepWriting();
          written += chunk.length;
          if (!socket.write(chunk)) {
            socket.once('drain', more);
            return;
          }
        }
      };
      if (keepWriting) more();
    });
  });
  return withoutHang(answered, 'the connection');
}

const POST = 'POST /auth/send-otp HTTP/1.1\r\nHost: x\r\n';

describe('a body', () => {
  it.each([
    ['an array', '[]'],
    ['a string', '"x"'],
    ['a number', '1'],
    ['null', 'null'],
    ['half of JSON', '{"phoneNumber":'],
    ['bytes that are no UTF-8', '{"phoneNumber":"\u00ff"}'],
    ['nothing but a type', ''],
    ['a prototype', '{"__proto__":{"phoneNumber":"+919876543210"}}'],
    ['a constructor', '{"constructor":{"prototype":{"phoneNumber":"+919876543210"}}}'],
    ['a toString', '{"phoneNumber":{"toString":"x"}}'],
    ['an array of a number', '{"phoneNumber":["+919876543210"]}'],
    ['a deep nest', `{"phoneNumber":${'['.repeat(5_000)}${']'.repeat(5_000)}}`],
    ['a hasOwnProperty', '{"hasOwnProperty":1,"phoneNumber":1}'],
    ['a then', '{"then":"x","phoneNumber":true}'],
  ])('send-otp answers a body of %s with a 400 that names the fault', async (_name, body) => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, body);
    expect(statusAndCode(answer)).toEqual([400, 'validation_failed']);
    const field = /^\{.*\}$/.test(body) || body === '' ? 'phoneNumber' : 'body';
    expect(answer.body.errors?.[0]).toEqual({
      field: answer.body.detail?.includes('nested') ? 'body' : field,
      message: expect.any(String) as string,
    });
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    expect(world.upstream.calls).toHaveLength(0);
  });

  it('send-otp accepts a body with unknown fields, and passes none of them on', async () => {
    const phoneNumber = freshNumber();
    const answer = await call('POST', `${world.url}/auth/send-otp`, {
      phoneNumber,
      otp: '000000',
      requestId: 'mine',
      constructor: { name: 'x' },
      toString: 'x',
    });
    expect(answer.status).toBe(200);
    expect(answer.body.requestId).not.toBe('mine');
    expect(Object.keys(world.upstream.calls[0]?.body as object).sort()).toEqual([
      'idempotencyKey',
      'phoneNumber',
    ]);
  });

  it.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/xml',
    'x',
  ])('send-otp answers a body of type %s with 415', async (type) => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, 'phoneNumber=%2B919876543210', {
      'content-type': type,
    });
    expect(statusAndCode(answer)).toEqual([415, 'unsupported_media_type']);
  });

  it('send-otp answers a body of more than 16 KB with 413', async () => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, {
      phoneNumber: freshNumber(),
      x: 'x'.repeat(16_384),
    });
    expect(statusAndCode(answer)).toEqual([413, 'payload_too_large']);
  });

  it('send-otp accepts a body of exactly 16 KB', async () => {
    const body = { phoneNumber: freshNumber(), x: '' };
    body.x = 'x'.repeat(16_384 - JSON.stringify(body).length);
    expect((await call('POST', `${world.url}/auth/send-otp`, body)).status).toBe(200);
  });

  it('a body without an end is cut off with 413, and little of it is read', async () => {
    const chunk = Buffer.from(`4000\r\n${'x'.repeat(0x4000)}\r\n`);
    const { text, written } = await raw(
      `${POST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`,
      () => chunk,
    );
    expect(text).toMatch(/^HTTP\/1.1 413 /);
    // What the kernel buffers on both sides was written, not read.
    expect(written).toBeLessThan(20_000_000);
  });

  it.each(['/auth/send-otp', '/nowhere'])(
    'a request to %s whose body never comes is answered with 400 after ten seconds, and cut off',
    async (path) => {
      const server: Server = world.instances[0]!.app.getHttpServer();
      expect([server.requestTimeout, server.headersTimeout]).toEqual([10_000, 10_000]);
      // Node.js looks at it every second.
      server.requestTimeout = server.headersTimeout = 1;
      try {
        const { text } = await raw(
          `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{`,
        );
        expect(text).toMatch(/^HTTP\/1.1 400 /);
        expect(text).toContain('The request took too long');
      } finally {
        server.requestTimeout = server.headersTimeout = 10_000;
      }
    },
  );

  it('a compressed body is answered with 415', async () => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, '{}', { 'content-encoding': 'gzip' });
    expect(statusAndCode(answer)).toEqual([415, 'unsupported_media_type']);
  });

  it.each(['GET /auth/me', 'POST /nowhere', 'GET /health/live', 'DELETE /auth/send-otp'])(
    'the body of %s, which needs no body, is not read',
    async (line) => {
      const { written } = await raw(
        `${line} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 100000000\r\n\r\n`,
        () => Buffer.alloc(65_536, 'x'),
      );
      expect(written).toBeLessThan(20_000_000);
    },
  );
});

describe('a path', () => {
  it.each(['/auth/%zz', '/%', '/auth/%c0%af', '/%00', '//', '/auth/../auth/%ff'])(
    'the path %s is answered with a 4xx that does not repeat it',
    async (path) => {
      const { text } = await raw(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      expect(text).toMatch(/^HTTP\/1.1 4\d\d /);
      expect(text).toMatch(/application\/problem\+json/);
      expect(text.toLowerCase()).toMatch(/x-request-id: [a-z0-9-]+/);
      expect(text.split('\r\n\r\n')[1]).not.toContain(path);
    },
  );

  it.each([
    '/docs/..%5c',
    '/docs/..%5C..%5cpackage.json',
    '/docs/%2e%2e%2fpackage.json',
    '/docs/..%2f..%2f..%2fetc/passwd',
    '/docs/x/../../package.json',
    '/docs//index.html',
    '/docs/.%2findex.html',
    '/docs/%00',
    '/pages/..%5c',
    '/pages/..%2fpages.js',
  ])('a path that leads out of its folder is not found: %s', async (path) => {
    const { text } = await raw(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(text).toMatch(/^HTTP\/1.1 (404|400) /);
    expect(text).toMatch(/application\/problem\+json/);
  });

  it('an unknown path is answered with 404 for every method', async () => {
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']) {
      const answer = await call(method, `${world.url}/nowhere?phone=%2B919876543210`);
      expect(statusAndCode(answer)).toEqual([404, 'not_found']);
    }
  });

  it('a wrong method is answered with 405 and the allowed methods', async () => {
    const answer = await call('GET', `${world.url}/auth/send-otp`);
    expect([answer.status, answer.body.code, answer.headers.get('allow')]).toEqual([
      405,
      'method_not_allowed',
      'POST',
    ]);
    const me = await call('POST', `${world.url}/auth/me`, {});
    expect([me.status, me.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  });
});

describe('a request', () => {
  it.each([
    ['garbage', '\u0000\u0001\u0002\r\n\r\n', 400],
    ['a header that never ends', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(100_000)}`, 413],
    ['two lengths', `${POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx`, 400],
    [
      'a length and chunks (request smuggling)',
      `${POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      400,
    ],
    ['a negative length', `${POST}Content-Length: -1\r\n\r\n`, 400],
    ['an unknown method', 'FROBNICATE / HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['no host', 'GET /health/live HTTP/1.1\r\n\r\n', 400],
    ['two hosts', 'GET /auth/me HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n', 400],
    ['the same host twice', 'GET /auth/me HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n', 400],
    ...['gzip, chunked', 'chunked, gzip', 'gzip', 'identity', 'xchunked', 'chunked, chunked'].map(
      (coding): [string, string, number] => [
        `Transfer-Encoding: ${coding}`,
        `${POST}Content-Type: application/json\r\nTransfer-Encoding: ${coding}\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
        400,
      ],
    ),
    ['TE: gzip, chunked', 'GET /auth/me HTTP/1.1\r\nHost: x\r\nTE: gzip, chunked\r\n\r\n', 400],
  ])('a request with %s is answered and cut off', async (_name, bytes, status) => {
    const { text } = await raw(bytes);
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${String(status)} `));
  });

  it.each(['/auth/me', '/nowhere', '/docs', '/.well-known/jwks.json'])(
    'the response to GET %s carries the headers that restrict a browser',
    async (path) => {
      const { headers } = await call('GET', `${world.url}${path}`);
      const policy = headers.get('content-security-policy')?.split(';') ?? [];
      for (const directive of ['default-src', 'object-src', 'base-uri', 'form-action', 'frame-ancestors'])
        expect(policy).toContain(`${directive} 'none'`);
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('referrer-policy')).toBe('no-referrer');
    },
  );

  it('a chunked body is read, in any spelling, and a TE header for trailers is allowed', async () => {
    for (const coding of ['chunked', 'Chunked']) {
      const { text } = await raw(
        `${POST}TE: trailers\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: ${coding}\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
      );
      expect(text).toContain('phoneNumber is missing');
    }
  });

  it('a harmless X-Request-Id is kept', async () => {
    const answer = await call('GET', `${world.url}/auth/me`, undefined, { 'x-request-id': 'trace-1.2_3' });
    expect(answer.headers.get('x-request-id')).toBe('trace-1.2_3');
  });

  it.each(['a b', 'x'.repeat(65), '<script>', '"}', 'ä'])('the X-Request-Id %s is replaced', async (id) => {
    const { text } = await raw(
      Buffer.from(
        `GET /auth/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: ${id}\r\n\r\n`,
        'latin1',
      ),
    );
    expect(text).toMatch(/^HTTP\/1.1 401 /);
    expect(text.toLowerCase()).toMatch(/x-request-id: [0-9a-f-]{36}\r\n/);
  });

  it.each(['OPTIONS /auth/me', 'OPTIONS /auth/nowhere', 'OPTIONS /oauth/token', 'POST /%6Fauth/token'])(
    'the response to %s must not be cached',
    async (line) => {
      const { text } = await raw(
        `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
      );
      expect(text.toLowerCase()).toContain('cache-control: no-store');
      expect(text.toLowerCase()).toMatch(/x-request-id: /);
    },
  );

  it.each(['/auth/me', '/auth/nowhere', '/auth/%zz', '/auth/send-otp'])(
    'the response to GET %s must not be cached',
    async (path) => {
      const { text } = await raw(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      expect(text.toLowerCase()).toContain('cache-control: no-store');
    },
  );

  it.each([
    ['a scheme only', 'Bearer'],
    ['an empty bearer token', 'Bearer '],
    ['another scheme', 'Basic eA=='],
    ['two bearer tokens', 'Bearer a b'],
    ['a bearer token of 8,000 characters', `Bearer ${'x'.repeat(8_000)}`],
    ['an empty JWT', 'Bearer ..'],
    ['an unsigned JWT', 'Bearer eyJhbGciOiJub25lIn0.e30.'],
  ])(
    'a request with %s is answered with a 401 that asks for a bearer token',
    async (_name, authorization) => {
      const answer = await call('GET', `${world.url}/auth/me`, undefined, { authorization });
      expect(statusAndCode(answer)).toEqual([401, 'unauthenticated']);
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/);
    },
  );
});

describe('random input', () => {
  const json = fc.jsonValue({ maxDepth: 4 });

  it('any JSON as a body is answered without a 5xx, and calls no upstream', async () => {
    await fc.assert(
      fc.asyncProperty(json, fc.constantFrom('send-otp', 'verify-otp'), async (body, route) => {
        const answer = await call('POST', `${world.url}/auth/${route}`, JSON.stringify(body));
        expect(answer.status).toBeLessThan(500);
      }),
      { numRuns: 100 },
    );
    expect(world.upstream.calls).toHaveLength(0);
  });

  it('any JSON in the fields of a verification is answered with 400 or 410', async () => {
    await fc.assert(
      fc.asyncProperty(json, json, async (requestId, otpCode) => {
        const answer = await call('POST', `${world.url}/auth/verify-otp`, { requestId, otpCode });
        expect([400, 410]).toContain(answer.status);
      }),
      { numRuns: 100 },
    );
    expect(world.upstream.calls).toHaveLength(0);
  });

  it('a phone number with any additional character is answered with 400', async () => {
    const noise = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(noise, fc.nat(13), async (text, at) => {
        const number = '+919876543210';
        const spelling = number.slice(0, at) + text + number.slice(at);
        expect((await sendOtp(world.url, spelling)).status).toBe(400);
      }),
      { numRuns: 100 },
    );
    expect(world.upstream.calls).toHaveLength(0);
  });
});
