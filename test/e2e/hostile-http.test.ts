import { connect } from 'node:net';
import fc from 'fast-check';
import { call, freshNumber, sendOtp, startWorld, type World } from '../support/world';

let world: World;

beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world.close());
afterEach(() => {
  world.upstream.reset();
});

/** Writes raw bytes, and resolves with what came back when the server closed, or after some silence. */
function raw(
  bytes: string | Buffer,
  { keepWriting, patience = 2_000 }: { keepWriting?: () => Buffer; patience?: number } = {},
): Promise<{ text: string; closed: boolean; written: number }> {
  const { port } = new URL(world.url);
  return new Promise((resolve) => {
    const socket = connect(Number(port), '127.0.0.1');
    let text = '';
    let written = 0;
    let ended = false;
    const finish = (closed: boolean): void => {
      if (ended) return;
      ended = true;
      socket.destroy();
      resolve({ text, closed, written });
    };
    socket.setTimeout(patience, () => {
      finish(false);
    });
    socket.on('data', (chunk) => (text += chunk.toString('latin1')));
    socket.on('error', () => {
      finish(true);
    });
    socket.on('close', () => {
      finish(true);
    });
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
  ])('of %s is a 400 that names what does not hold', async (_name, body) => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, body);
    expect([answer.status, answer.body.code]).toEqual([400, 'validation_failed']);
    const field = /^\{.*\}$/.test(body) || body === '' ? 'phoneNumber' : 'body';
    expect(answer.body.errors?.[0]).toEqual({
      field: answer.body.detail?.includes('nested') ? 'body' : field,
      message: expect.any(String) as string,
    });
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    expect(world.upstream.calls).toHaveLength(0);
  });

  it('with unknown fields is accepted, and they go nowhere', async () => {
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
  ])('of type %s is a 415', async (type) => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, 'phoneNumber=%2B919876543210', {
      'content-type': type,
    });
    expect([answer.status, answer.body.code]).toEqual([415, 'unsupported_media_type']);
  });

  it('of more than 16 KB is a 413', async () => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, {
      phoneNumber: freshNumber(),
      x: 'x'.repeat(16_384),
    });
    expect([answer.status, answer.body.code]).toEqual([413, 'payload_too_large']);
  });

  it('of 16 KB in all is accepted', async () => {
    const body = { phoneNumber: freshNumber(), x: '' };
    body.x = 'x'.repeat(16_384 - JSON.stringify(body).length);
    expect((await call('POST', `${world.url}/auth/send-otp`, body)).status).toBe(200);
  });

  it('without an end is cut off, and little of it is read', async () => {
    const chunk = Buffer.from(`4000\r\n${'x'.repeat(0x4000)}\r\n`);
    const { text, closed, written } = await raw(
      `${POST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`,
      { keepWriting: () => chunk },
    );
    expect(text).toMatch(/^HTTP\/1.1 413 /);
    expect(closed).toBe(true);
    // What the kernel buffers on both sides was written, not read.
    expect(written).toBeLessThan(20_000_000);
  });

  it('that is promised and never comes is answered after ten seconds, and cut off', async () => {
    const answers = await Promise.all(
      ['/auth/send-otp', '/nowhere'].map((path) =>
        raw(
          `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{`,
          {
            patience: 15_000,
          },
        ),
      ),
    );
    for (const { text, closed } of answers) {
      expect(text).toMatch(/^HTTP\/1.1 400 /);
      expect(text).toContain('The request took too long');
      expect(closed).toBe(true);
    }
  });

  it('that is packed is a 415', async () => {
    const answer = await call('POST', `${world.url}/auth/send-otp`, '{}', { 'content-encoding': 'gzip' });
    expect([answer.status, answer.body.code]).toEqual([415, 'unsupported_media_type']);
  });

  it.each(['GET /auth/me', 'POST /nowhere', 'GET /health/live', 'DELETE /auth/send-otp'])(
    'that %s did not ask for is not read',
    async (line) => {
      const { closed, written } = await raw(
        `${line} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 100000000\r\n\r\n`,
        { keepWriting: () => Buffer.alloc(65_536, 'x') },
      );
      expect(closed).toBe(true);
      expect(written).toBeLessThan(20_000_000);
    },
  );
});

describe('a path', () => {
  it.each(['/auth/%zz', '/%', '/auth/%c0%af', '/%00', '//', '/auth/../auth/%ff'])(
    '%s is never a 5xx, and is not repeated',
    async (path) => {
      const { text } = await raw(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      expect(text).toMatch(/^HTTP\/1.1 4\d\d /);
      expect(text).toMatch(/application\/problem\+json/);
      expect(text.toLowerCase()).toMatch(/x-request-id: [a-z0-9-]+/);
      expect(text.split('\r\n\r\n')[1]).not.toContain(path);
    },
  );

  it('that is not there is a 404 for every method', async () => {
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']) {
      const answer = await call(method, `${world.url}/nowhere?phone=%2B919876543210`);
      expect([answer.status, answer.body.code]).toEqual([404, 'not_found']);
    }
  });

  it('with a wrong method is a 405 that says which are allowed', async () => {
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
  ])('of %s is answered and cut off', async (_name, bytes, status) => {
    const { text, closed } = await raw(bytes);
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${String(status)} `));
    expect(closed).toBe(true);
  });

  it('keeps the id that its caller gave, when it is harmless', async () => {
    const answer = await call('GET', `${world.url}/auth/me`, undefined, { 'x-request-id': 'trace-1.2_3' });
    expect(answer.headers.get('x-request-id')).toBe('trace-1.2_3');
  });

  it.each(['a b', 'x'.repeat(65), '<script>', '"}', 'ä'])('gets a new id in place of %s', async (id) => {
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
    'of %s is not for a cache either',
    async (line) => {
      const { text } = await raw(
        `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
      );
      expect(text.toLowerCase()).toContain('cache-control: no-store');
      expect(text.toLowerCase()).toMatch(/x-request-id: /);
    },
  );

  it.each(['/auth/me', '/auth/nowhere', '/auth/%zz', '/auth/send-otp'])(
    'of %s is not for a cache',
    async (path) => {
      const { text } = await raw(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      expect(text.toLowerCase()).toContain('cache-control: no-store');
    },
  );

  it.each([
    'Bearer',
    'Bearer ',
    'Basic eA==',
    'Bearer a b',
    `Bearer ${'x'.repeat(8_000)}`,
    'Bearer ..',
    'Bearer eyJhbGciOiJub25lIn0.e30.',
  ])('with the authorization %s is a 401 that asks for a bearer token', async (authorization) => {
    const answer = await call('GET', `${world.url}/auth/me`, undefined, { authorization });
    expect([answer.status, answer.body.code]).toEqual([401, 'unauthenticated']);
    expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/);
  });
});

describe('whatever a caller sends', () => {
  const json = fc.jsonValue({ maxDepth: 4 });

  it('is never a 5xx, and reaches upstream only as a phone number', async () => {
    await fc.assert(
      fc.asyncProperty(json, fc.constantFrom('send-otp', 'verify-otp'), async (body, route) => {
        const answer = await call('POST', `${world.url}/auth/${route}`, JSON.stringify(body));
        expect(answer.status).toBeLessThan(500);
      }),
      { numRuns: 300 },
    );
    expect(world.upstream.calls).toHaveLength(0);
  });

  it('in the fields of a body is a 400 or a 410', async () => {
    await fc.assert(
      fc.asyncProperty(json, json, async (requestId, otpCode) => {
        const answer = await call('POST', `${world.url}/auth/verify-otp`, { requestId, otpCode });
        expect([400, 410]).toContain(answer.status);
      }),
      { numRuns: 300 },
    );
    expect(world.upstream.calls).toHaveLength(0);
  });

  it('beside ten digits is another spelling and a 400', async () => {
    const noise = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(noise, fc.nat(13), async (text, at) => {
        const number = '+919876543210';
        const spelling = number.slice(0, at) + text + number.slice(at);
        expect((await sendOtp(world.url, spelling)).status).toBe(400);
      }),
      { numRuns: 300 },
    );
    expect(world.upstream.calls).toHaveLength(0);
  });
});
