import type { Socket } from 'node:net';
import tls from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import zlib from 'node:zlib';
import type { StartMessagingClient } from '../../src/startmessaging/startmessaging.client';
import type { UpstreamError } from '../../src/upstream/upstream.error';
import { until } from '../support/hang';
import { holdTimers } from '../support/held-timers';
import {
  API_KEY,
  chunk,
  CHUNKED,
  CODE,
  head,
  patientClient,
  packed,
  padded,
  RIGHT,
  verify,
  writes,
  WRONG,
  type Respond,
} from '../support/hostile-client';
import { pour, rawAnswer, startRawUpstream, trickle, type RawUpstream } from '../support/raw-upstream';

// The client against an upstream of raw bytes. Whatever comes: the call ends, nothing is taken for an answer that is none, and
// nothing of one call is left to the next.

const PHONE_NUMBER = '+919876543210';

const cleanUps: (() => unknown)[] = [];

afterEach(async () => {
  jest.restoreAllMocks();
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function upstream(respond: Respond, secure?: tls.TlsOptions): Promise<RawUpstream> {
  const started = await startRawUpstream(respond, secure);
  cleanUps.push(() => started.close());
  return started;
}

const sendCode = (client: StartMessagingClient) =>
  client.sendCode({ phoneNumber: PHONE_NUMBER, code: CODE, expiryMinutes: 5, idempotencyKey: 'key-1' });
const sendOtp = (client: StartMessagingClient) =>
  client.sendOtp({ phoneNumber: PHONE_NUMBER, idempotencyKey: 'key-1' });

// Node 20 has no zstd: two bytes of a window of 128 MB, a raw block.
const ZSTD = Buffer.concat([
  Buffer.from('28b52ffd0088', 'hex'),
  Buffer.from([((RIGHT.length << 3) | 1) & 0xff, (RIGHT.length << 3) >> 8, 0]),
  Buffer.from(RIGHT),
]);

describe('a packed answer', () => {
  test('the StartMessaging client asks for responses without compression', async () => {
    const heads: string[] = [];
    const { url } = await upstream((socket, request) => {
      heads.push(request.head);
      socket.write(rawAnswer(RIGHT));
    });
    expect(await verify(patientClient(url))).toBe('right');
    expect(heads.map((text) => text.match(/^accept-encoding: .*/gim))).toEqual([
      ['Accept-Encoding: identity'],
    ]);
  });

  const BOMB = padded(3_000_000);
  test.each<[string, Respond]>([
    ['gzip, small', packed(zlib.gzipSync(RIGHT), 'gzip')],
    ['a gzip bomb', packed(zlib.gzipSync(BOMB), 'gzip')],
    ['a gzip bomb of another name', packed(zlib.gzipSync(BOMB), 'X-GZIP')],
    ['a deflate bomb', packed(zlib.deflateSync(BOMB), 'deflate')],
    ['a raw deflate bomb', packed(zlib.deflateRawSync(BOMB), 'deflate')],
    ['a brotli bomb', packed(zlib.brotliCompressSync(BOMB), 'br')],
    ['zstd that wants a window of 128 MB', packed(ZSTD, 'zstd')],
    ['gzip in gzip', packed(zlib.gzipSync(zlib.gzipSync(BOMB)), 'gzip, gzip')],
    ['plain JSON that is called gzip', packed(Buffer.from(RIGHT), 'gzip')],
    ['an encoding that does not exist', packed(Buffer.from(RIGHT), 'rot13')],
    [
      'empty gzip members without an end',
      (socket) => {
        socket.write(head({ 'Content-Encoding': 'gzip' }));
        socket.write(zlib.gzipSync(RIGHT));
        pour(socket, Buffer.concat(Array<Buffer>(2_000).fill(zlib.gzipSync(''))));
      },
    ],
    [
      'stored blocks without an end',
      (socket) => {
        socket.write(head({ 'Content-Encoding': 'deflate' }));
        pour(socket, Buffer.from('000000ffff'.repeat(4_000), 'hex'));
      },
    ],
  ])('a compressed response is not read: %s', async (_name, respond) => {
    const { url, open } = await upstream(respond);
    expect(await verify(patientClient(url))).toBe('failed');
    await until(() => open.size === 0);
  });

  test('a compressed response without a Content-Encoding is no JSON, and fails', async () => {
    const { url } = await upstream(writes(rawAnswer(zlib.gzipSync(RIGHT))));
    expect(await verify(patientClient(url))).toBe('failed');
  });

  test('a compressed response still shows its status', async () => {
    const { url } = await upstream((socket) => {
      const headers = { 'Content-Encoding': 'gzip', 'Retry-After': '9' };
      socket.write(rawAnswer(zlib.gzipSync(BOMB), { status: '429 Too Many Requests', headers }));
    });
    expect(await verify(patientClient(url))).toBe('throttled');
  });
});

describe('an answer without bound is cut by its size, not by the clock', () => {
  test.each<[string, Respond, string]>([
    [
      'a body',
      (socket) => {
        socket.write(head({}));
        pour(socket, padded(16_000));
      },
      'failed',
    ],
    [
      'a body that is announced',
      (socket) => {
        socket.write(head({ 'Content-Length': '99999999999' }));
        pour(socket, padded(16_000));
      },
      'failed',
    ],
    [
      'small chunks',
      (socket) => {
        socket.write(CHUNKED + chunk(RIGHT));
        pour(socket, chunk(' ').repeat(1_000));
      },
      'failed',
    ],
    [
      'an extension of a chunk',
      (socket) => {
        socket.write(`${CHUNKED}${RIGHT.length.toString(16)};x=`);
        pour(socket, 'x'.repeat(10_000));
      },
      'failed',
    ],
    [
      'chunks whose extensions are large, around a body that is not',
      (socket) => {
        socket.write(CHUNKED + chunk(RIGHT));
        pour(socket, `1;x=${'x'.repeat(9_000)}\r\n \r\n`);
      },
      'failed',
    ],
    [
      'trailers',
      (socket) => {
        socket.write(`${CHUNKED}${chunk(RIGHT)}0\r\n`);
        pour(socket, 'x: y\r\n'.repeat(500));
      },
      'failed',
    ],
    [
      'headers',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n');
        pour(socket, 'x: y\r\n'.repeat(500));
      },
      'failed',
    ],
    [
      'one header',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nx: ');
        pour(socket, 'x'.repeat(10_000));
      },
      'failed',
    ],
    [
      'a status message',
      (socket) => {
        socket.write('HTTP/1.1 200 ');
        pour(socket, 'x'.repeat(10_000));
      },
      'failed',
    ],
    ...(['100 Continue', '102 Processing', '103 Early Hints', '199 Odd'] as const).map(
      (status): [string, Respond, string] => [
        `${status}, over and over`,
        (socket) => {
          pour(socket, head({ Link: '</a>' }, status).repeat(100));
        },
        'failed',
      ],
    ),
    [
      'a body of a status that says enough',
      (socket) => {
        socket.write(head({}, '401 Unauthorized'));
        pour(socket, padded(16_000));
      },
      'credentials_refused',
    ],
  ])(
    'a response without an end is cut by its size, not by the clock: %s',
    async (_name, respond, outcome) => {
      const { url, open } = await upstream(respond);
      expect(await verify(patientClient(url))).toBe(outcome);
      await until(() => open.size === 0);
    },
  );

  test('a response body of 64 KB is read, and one more byte is too much', async () => {
    const sizes = [65_536, 65_537];
    const { url } = await upstream((socket) =>
      socket.write(rawAnswer(padded((sizes.shift() ?? 0) - RIGHT.length))),
    );
    const client = patientClient(url);
    expect([await verify(client), await verify(client)]).toEqual(['right', 'failed']);
  });

  test('a few 1xx responses before the response are skipped', async () => {
    const { url } = await upstream(
      writes(head({}, '100 Continue'), head({ Link: '</a>' }, '103 Early Hints'), rawAnswer(RIGHT)),
    );
    expect(await verify(patientClient(url))).toBe('right');
  });
});

test('an upgrade to something else, which was not asked for, is no response', async () => {
  const { url, open } = await upstream(
    writes(head({ Connection: 'Upgrade', Upgrade: 'websocket' }, '101 Switching Protocols'), RIGHT),
  );
  expect(await verify(patientClient(url))).toBe('failed');
  await until(() => open.size === 0);
});

describe('an answer that does not end is given up at the timeout, and its connection with it', () => {
  test.each<[string, Respond]>([
    ['silence', () => undefined],
    [
      'a header that trickles in',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nx: ');
        trickle(socket, 'x', 5);
      },
    ],
    [
      '1xx answers that trickle in',
      (socket) => {
        trickle(socket, head({}, '102 Processing'), 5);
      },
    ],
    [
      'a right answer whose last byte does not come',
      (socket) => {
        socket.write(head({ 'Content-Length': String(RIGHT.length + 1) }) + RIGHT);
      },
    ],
    [
      'a right answer and chunks that trickle in',
      (socket) => {
        socket.write(CHUNKED + chunk(RIGHT));
        trickle(socket, chunk(' '), 5);
      },
    ],
  ])(
    'a response that never ends is given up at the timeout, with its connection: %s',
    async (_name, respond) => {
      const timeouts = holdTimers((ms) => ms === 200);
      const { url, open } = await upstream((socket, request) => {
        respond(socket, request);
        // Some of it comes first.
        setTimeout(() => {
          timeouts.fire();
        }, 20);
      });
      expect(await verify(patientClient(url, { timeoutMs: 200 }))).toBe('timed_out');
      await until(() => open.size === 0);
    },
  );

  test('a response after the timeout does not reach the next call', async () => {
    const timeouts = holdTimers((ms) => ms === 200);
    const late: Socket[] = [];
    const { url, open } = await upstream((socket) => {
      // The first is kept waiting, and answered while the second waits.
      late.push(socket);
      if (late.length === 1) {
        timeouts.fire();
        return;
      }
      if (late[0]?.writable) late[0].write(rawAnswer(RIGHT));
      socket.write(rawAnswer(WRONG));
    });
    const client = patientClient(url, { timeoutMs: 200 });
    expect([await verify(client), await verify(client)]).toEqual(['timed_out', 'wrong']);
    await until(() => open.size === 0);
  });
});

describe('what is not one whole answer of HTTP/1 is never a right code', () => {
  const length = String(RIGHT.length);
  test.each<[string, Respond]>([
    ['JSON without a head', (socket) => socket.end(RIGHT)],
    ['a page without a head', (socket) => socket.end('<html>')],
    ['bytes', (socket) => socket.end(Buffer.from('\0\x01\xff'.repeat(100), 'latin1'))],
    ['the settings of HTTP/2', (socket) => socket.end(Buffer.from('000000040000000000', 'hex'))],
    ['a preface of HTTP/2', (socket) => socket.end('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')],
    ['a request', (socket) => socket.end(`POST /otp/verify HTTP/1.1\r\nContent-Length: 26\r\n\r\n${RIGHT}`)],
    ['a body that is shorter than it says', (socket) => socket.end(head({ 'Content-Length': '99' }) + RIGHT)],
    ['a body that is cut by its length', writes(head({ 'Content-Length': '20' }), RIGHT)],
    ['a length that is negative', writes(head({ 'Content-Length': '-26' }), RIGHT)],
    ['a length that is no number', writes(head({ 'Content-Length': '26, 26' }), RIGHT)],
    [
      'two lengths',
      writes(`HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\nContent-Length: 5\r\n\r\n${RIGHT}`),
    ],
    [
      'a length and chunks',
      writes(head({ 'Content-Length': length, 'Transfer-Encoding': 'chunked' }) + chunk(RIGHT) + '0\r\n\r\n'),
    ],
    ['chunks of no size', writes(`${CHUNKED}zz\r\n${RIGHT}\r\n0\r\n\r\n`)],
    ['chunks without an end', (socket) => socket.end(CHUNKED + chunk(RIGHT))],
    ['a header that is folded over a line feed', writes(`HTTP/1.1 200 OK\nx: y\n\n${RIGHT}`)],
    ['a NUL in a header', (socket) => socket.end(`HTTP/1.1 200 OK\r\nx: \0\r\n\r\n${RIGHT}`)],
    ['a status of two digits', writes(`HTTP/1.1 20 OK\r\nContent-Length: ${length}\r\n\r\n${RIGHT}`)],
    ['a status below 100', writes(rawAnswer(RIGHT, { status: '099 OK' }))],
    ['a status of 999', writes(rawAnswer(RIGHT, { status: '999 OK' }))],
    ['a 101 without an upgrade', (socket) => socket.end(rawAnswer(RIGHT, { status: '101 Odd' }))],
    ['a 100 and no more', (socket) => socket.end(head({}, '100 Continue'))],
    ['a 204, which has no body', writes(rawAnswer(RIGHT, { status: '204 No Content' }))],
    ['the end of the connection', (socket) => socket.end()],
    ['a reset', (socket) => socket.resetAndDestroy()],
    [
      'half of the head and a reset',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nContent-', () => socket.resetAndDestroy());
      },
    ],
  ])('a broken HTTP/1 response is never a right code: %s', async (_name, respond) => {
    const { url, open } = await upstream(respond);
    expect(await verify(patientClient(url))).toBe('failed');
    expect(
      await sendCode(patientClient(url)).then(
        () => 'accepted',
        (error: unknown) => (error as UpstreamError).accepted,
      ),
    ).toBe('unknown');
    await until(() => open.size === 0);
  });

  test('an upstream that closes its half after the response leaves no connection open', async () => {
    const { url, open } = await upstream((socket) => socket.end(rawAnswer(RIGHT)));
    expect(await verify(patientClient(url))).toBe('right');
    await until(() => open.size === 0);
  });
});

describe('what follows an answer is not the answer of the next call', () => {
  const later = (socket: Socket, ms: number, bytes: Buffer): void => {
    setTimeout(() => socket.writable && socket.write(bytes), ms);
  };
  const right = rawAnswer(RIGHT);
  const cuts = [1, 20, right.length - 5];
  /** How a wrong code is answered together with `true` that nobody asked for. */
  const FOLLOWED: [string, Respond][] = [
    ['in the same bytes', writes(Buffer.concat([rawAnswer(WRONG), right]))],
    ['in the next bytes', writes(rawAnswer(WRONG), right)],
    ...[0, 1, 5].map((ms): [string, Respond] => [
      `${ms} ms later`,
      (socket) => {
        socket.write(rawAnswer(WRONG));
        later(socket, ms, right);
      },
    ]),
    ...cuts.map((cut): [string, Respond] => [
      `in two pieces, cut after ${cut} bytes`,
      (socket) => {
        socket.write(Buffer.concat([rawAnswer(WRONG), right.subarray(0, cut)]));
        later(socket, 3, right.subarray(cut));
      },
    ]),
    [
      'when the next request comes',
      (socket, { place }) => {
        // No look at an idle connection could see this one before it counts.
        socket.write(place === 1 ? rawAnswer(WRONG) : Buffer.concat([right, rawAnswer(WRONG)]));
      },
    ],
    [
      'behind the end that the length names',
      (socket) => {
        socket.write(Buffer.concat([rawAnswer(WRONG), Buffer.from('\r\n\r\n'), right]));
      },
    ],
  ];

  test.each(FOLLOWED)(
    'bytes behind the response to a verification do not answer the next call: %s',
    async (_name, respond) => {
      const { url, seen, open } = await upstream(respond);
      const client = patientClient(url);
      for (let i = 0; i < 10; i++) {
        expect(['wrong', 'failed']).toContain(await verify(client));
        // Some calls find all that was written behind the answer before them.
        if (i % 3 === 0) await sleep(4);
      }
      // The reason that it holds: a connection carries one call.
      expect(seen).toEqual({ connections: 10, requests: 10 });
      await until(() => open.size === 0);
    },
  );

  test('bytes behind the response to a send do not give the next send another request id', async () => {
    let sends = 0;
    const { url } = await upstream((socket) => {
      sends += 1;
      const own = rawAnswer(JSON.stringify({ data: { requestId: `own-${sends}` } }));
      socket.write(own);
      later(socket, sends % 4, rawAnswer('{"data":{"requestId":"of-another"}}'));
    });
    const client = patientClient(url);
    for (let i = 1; i <= 20; i++) expect((await sendOtp(client)).id).toBe(`own-${i}`);
  });

  test('bytes behind a response over TLS do not answer the next call', async () => {
    const { respond, url } = await secureUpstream();
    respond.current = (socket) => {
      socket.write(rawAnswer(WRONG));
      later(socket, 1, right);
    };
    const client = patientClient(url);
    for (let i = 0; i < 10; i++) expect(['wrong', 'failed']).toContain(await verify(client));
  });
});

/** TLS without certificates: both sides know a key. */
async function secureUpstream(): Promise<{ url: string; open: Set<Socket>; respond: { current: Respond } }> {
  const respond: { current: Respond } = { current: writes(rawAnswer(RIGHT)) };
  const psk = Buffer.alloc(32, 7);
  const options = { ciphers: 'PSK', maxVersion: 'TLSv1.2' } as const;
  const { url, open } = await upstream(
    (socket, request) => {
      respond.current(socket, request);
    },
    { ...options, pskCallback: () => psk },
  );
  const { connect } = tls;
  const spied = jest.spyOn(tls, 'connect').mockImplementation(((given: tls.ConnectionOptions) =>
    connect({
      ...given,
      ...options,
      pskCallback: () => ({ psk, identity: 'x' }),
      checkServerIdentity: () => undefined,
    })) as typeof tls.connect);
  cleanUps.push(() => {
    spied.mockRestore();
  });
  return { url, open, respond };
}

describe('over TLS', () => {
  test('a good response over TLS is read', async () => {
    const { url } = await secureUpstream();
    expect(await verify(patientClient(url))).toBe('right');
  });

  test('a flood of 1xx responses over TLS is cut by its size', async () => {
    const { url, open, respond } = await secureUpstream();
    respond.current = (socket) => {
      pour(socket, head({}, '102 Processing').repeat(100));
    };
    expect(await verify(patientClient(url))).toBe('failed');
    await until(() => open.size === 0);
  });

  test.each([
    ['bytes', Buffer.alloc(4_000, 0x41)],
    ['a record without encryption', Buffer.from('17030300020000', 'hex')],
    ['an alert', Buffer.from('15030300020228', 'hex')],
  ])(
    'a TLS connection with %s in place of a response fails, and a send may have arrived',
    async (_name, bytes) => {
      const { url, open, respond } = await secureUpstream();
      respond.current = (socket) => {
        // Past the encryption, onto the wire.
        const { _parent: wire } = socket as unknown as { _parent: Socket };
        wire.write(bytes);
      };
      expect(await verify(patientClient(url))).toBe('failed');
      await expect(sendCode(patientClient(url))).rejects.toMatchObject({
        reason: 'failed',
        accepted: 'unknown',
      });
      await until(() => open.size === 0);
    },
  );
});

describe('an answer that contradicts itself', () => {
  test.each([
    ['{"data":{"verified":false,"verified":true}}'],
    ['{"data":{"verified":true,"verified":true}}'],
    ['{"data":{"verified":false},"data":{"verified":true}}'],
    ['{"data":{"verified":true,"verif\\u0069ed":true}}'],
    ['{"success":false,"success":true,"data":{"verified":true}}'],
    ['{"success":"false","data":{"verified":true}}'],
    ['{"success":0,"data":{"verified":true}}'],
    ['{"statusCode":401,"data":{"verified":true}}'],
    ['{"statusCode":"500","data":{"verified":true}}'],
    ['{"verified":false,"data":{"verified":true}}'],
    ['{"data":{"verified":true,"success":false}}'],
    ['{"data":{"verified":true,"error":"code expired"}}'],
    ['{"data":{"verified":true},"error":{"code":"VALIDATION_ERROR","message":"wrong code"}}'],
    ['{"data":{"verified":true},"error":{"code":"INSUFFICIENT_BALANCE"}}'],
  ])('a response that contradicts itself is neither a right nor a wrong code: %s', async (body) => {
    const { url } = await upstream(writes(rawAnswer(body)));
    expect(await verify(patientClient(url))).toBe('failed');
  });

  test.each([
    ['{"success":true,"statusCode":200,"error":null,"data":{"verified":true}}'],
    ['{"success":true,"data":{"verified":true,"note":"{\\"verified\\":false}"},"more":[{"verified":1},{}]}'],
    ['{"a":{"verified":false},"b":[{"a":1},{"a":1}],"data":{"verified":true,"a":{"a":{"a":"\\\\"}}}}'],
  ])('a response that only says more than needed is read as usual: %s', async (body) => {
    const { url } = await upstream(writes(rawAnswer(body)));
    expect(await verify(patientClient(url))).toBe('right');
  });

  test.each([
    ['{"success":true,"data":{"requestId":"a"},"error":{"code":"INSUFFICIENT_BALANCE"}}'],
    ['{"data":{"requestId":"a"},"error":{"code":"VALIDATION_ERROR"}}'],
    ['{"statusCode":400,"data":{"requestId":"a"}}'],
    ['{"data":{"requestId":"a"},"data":{}}'],
  ])(
    'a response that contradicts itself does not say for certain that nothing was sent: %s',
    async (body) => {
      const { url } = await upstream(writes(rawAnswer(body)));
      for (const send of [sendCode, sendOtp]) {
        await expect(send(patientClient(url))).rejects.toMatchObject({
          reason: 'failed',
          accepted: 'unknown',
        });
      }
    },
  );

  test.each([
    ['401 Unauthorized', 'credentials_refused'],
    ['402 Payment Required', 'wallet_empty'],
    ['403 Forbidden', 'credentials_refused'],
    ['500 Internal Server Error', 'failed'],
    ['502 Bad Gateway', 'failed'],
  ])('a response that contradicts itself blames no code and no number: %s', async (status, reason) => {
    const body = '{"success":false,"error":{"code":"VALIDATION_ERROR","message":"otp is wrong"}}';
    const { url } = await upstream(writes(rawAnswer(body, { status })));
    expect(await verify(patientClient(url))).toBe(reason);
    for (const send of [sendCode, sendOtp]) {
      await expect(send(patientClient(url))).rejects.toMatchObject({ reason });
    }
  });
});

describe('what upstream repeats of what it was told', () => {
  const secrets = [API_KEY, API_KEY.slice(8), '9876543210', CODE];
  const echo = `${API_KEY} ${PHONE_NUMBER} 98765-43210 ${CODE}`;

  test.each(
    [
      '200 OK',
      '201 Created',
      '302 Found',
      '307 Moved',
      '400 Bad',
      '401 No',
      '404 No',
      '429 Slow',
      '500 Oh',
      '503 No',
    ].map((status) => [status]),
  )('an error after a %s holds none of the secrets that upstream repeats in any place', async (status) => {
    const { url, seen } = await upstream((socket) => {
      const body = JSON.stringify({
        requestId: `req_${PHONE_NUMBER.slice(1)}`,
        success: false,
        message: echo,
        error: { code: CODE, message: echo, details: [{ message: echo }] },
      });
      const headers = {
        Location: `${url}/otp/send?key=${API_KEY}&to=${PHONE_NUMBER}&code=${CODE}`,
        'X-Echo': echo,
        'Retry-After': CODE,
        'Set-Cookie': echo,
      };
      socket.write(rawAnswer(body, { status: `${status} ${echo}`, headers }));
    });
    for (const call of [
      () => sendCode(patientClient(url)),
      () => sendOtp(patientClient(url)),
      () => patientClient(url).verifyOtp({ requestId: 'r', code: CODE }),
      () => patientClient(url).readMessage('m'),
    ]) {
      const told = await call().catch((error: unknown) => error);
      const text = JSON.stringify(told) + inspect(told, { depth: Infinity, showHidden: true });
      for (const secret of secrets) expect(text).not.toContain(secret);
    }
    // A redirect is not followed.
    expect(seen.requests).toBe(4);
  });

  test.each([
    ['the number', '9876543210'],
    ['the number and the country', `otp-${PHONE_NUMBER}`],
    ['the code', `m_${CODE}_1`],
    ['the API key', API_KEY],
  ])('a send id that repeats %s is not stored as the id of a send', async (_name, id) => {
    const { url } = await upstream(
      writes(rawAnswer(JSON.stringify({ data: { requestId: id, messageId: id } }))),
    );
    await expect(sendCode(patientClient(url))).rejects.toMatchObject({
      reason: 'failed',
      accepted: 'unknown',
    });
  });
});
