import { execFile } from 'node:child_process';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { selfSignedCertificate } from '../support/certificate';

const SCRIPT = join(__dirname, '../../scripts/key-into-secret.mjs');
const TOKEN = 'pod-token-0123456789';
const PATH = '/api/v1/namespaces/login/secrets/otp-login-signing-keys';
const MINUTE = 60_000;
const authority = selfSignedCertificate();

interface Secret {
  metadata: { name: string; resourceVersion: string; annotations?: Record<string, string> };
  data?: Record<string, string>;
}

/** As the Kubernetes API keeps one Secret: by TLS, with a token, and no write replaces a version that was not read. */
class Api {
  secret: Secret | undefined = {
    metadata: { name: 'otp-login-signing-keys', resourceVersion: '1', annotations: { by: 'hand' } },
  };
  /** A change by another client between the read and the write. */
  meanwhile: (() => void) | undefined;
  /** An answer instead of all others. */
  refusal: number | undefined;
  readonly asked: string[] = [];

  answer(request: IncomingMessage, body: string): { status: number; body: unknown } {
    this.asked.push(`${request.method} ${request.url} ${request.headers.authorization}`);
    if (request.headers.authorization !== `Bearer ${TOKEN}`) return { status: 401, body: {} };
    if (this.refusal !== undefined) return { status: this.refusal, body: this.secret };
    if (request.url !== PATH || this.secret === undefined) return { status: 404, body: {} };
    if (request.method === 'PUT') {
      const given = JSON.parse(body) as Secret;
      if (given.metadata.resourceVersion !== this.secret.metadata.resourceVersion)
        return { status: 409, body: this.secret };
      this.put(given.data);
    }
    const answer = { status: 200, body: structuredClone(this.secret) };
    if (request.method === 'GET') this.meanwhile?.();
    return answer;
  }

  put(data: Record<string, string> | undefined): void {
    if (this.secret === undefined) return;
    const resourceVersion = String(Number(this.secret.metadata.resourceVersion) + 1);
    this.secret = {
      ...this.secret,
      metadata: { ...this.secret.metadata, resourceVersion },
      ...(data && { data }),
    };
  }

  names(): string[] {
    return Object.keys(this.secret?.data ?? {});
  }
}

let api: Api;
let server: Server;
let account: string;

async function serve({ cert, key }: { cert: string; key: string }): Promise<void> {
  server = createServer({ cert, key }, (request: IncomingMessage, response: ServerResponse) => {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    request.on('end', () => {
      const { status, body } = api.answer(request, text);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
}

beforeEach(async () => {
  api = new Api();
  account = mkdtempSync(join(tmpdir(), 'otp-login-account-'));
  writeFileSync(join(account, 'token'), `${TOKEN}\n`);
  writeFileSync(join(account, 'namespace'), 'login');
  writeFileSync(join(account, 'ca.crt'), authority.cert);
  await serve(authority);
});
afterEach(async () => {
  rmSync(account, { recursive: true, force: true });
  server.close();
  await once(server, 'close');
});

function run(...parameters: string[]): Promise<{ code: number; output: string }> {
  const { port } = server.address() as AddressInfo;
  const env = {
    PATH: process.env.PATH,
    KUBERNETES_SERVICE_HOST: '127.0.0.1',
    KUBERNETES_SERVICE_PORT: String(port),
  };
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [SCRIPT, ...parameters, account], { env }, (_, out, err) => {
      resolve({ code: child.exitCode ?? -1, output: out + err });
    });
  });
}
const first = () => run('first', 'otp-login-signing-keys');
const next = () => run('next', 'otp-login-signing-keys');

/** When the key of this name begins to sign. */
const begins = (name: string): number =>
  Date.parse(name.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z-[0-9a-f]{8}\.pem$/, '$1-$2-$3T$4:$5:00Z'));

it('the script puts the first key into an empty Secret, to sign at once, and never prints it', async () => {
  const { code, output } = await first();
  expect([code, output]).toEqual([0, expect.stringContaining('is in the Secret otp-login-signing-keys')]);
  const [name = '', ...more] = api.names();
  expect(more).toEqual([]);
  expect(begins(name)).toBeLessThanOrEqual(Date.now());
  const pem = Buffer.from(api.secret?.data?.[name] ?? '', 'base64').toString();
  expect(createPrivateKey(pem).asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
  expect(output).not.toContain('PRIVATE');
  expect(output).not.toContain(pem.split('\n')[1]);
  expect(api.secret?.metadata.annotations).toEqual({ by: 'hand' });
  expect(api.asked).toEqual([`GET ${PATH} Bearer ${TOKEN}`, `PUT ${PATH} Bearer ${TOKEN}`]);
});

it('the script makes no first key where the Secret has a key', async () => {
  await first();
  const before = structuredClone(api.secret);
  const { code, output } = await first();
  expect([code, output]).toEqual([0, expect.stringContaining('Nothing was changed')]);
  expect(api.secret).toEqual(before);
});

it('the script adds a next key that signs in 15 minutes, and makes no other until then', async () => {
  await first();
  const old = { ...api.secret?.data };
  const before = Date.now();
  expect((await next()).code).toBe(0);
  expect(api.secret?.data).toMatchObject(old);
  const added = api.names().filter((name) => !(name in old));
  expect(added).toHaveLength(1);
  // The name has whole minutes.
  expect(begins(added[0]!)).toBeGreaterThan(before + 14 * MINUTE);
  expect(begins(added[0]!)).toBeLessThanOrEqual(Date.now() + 16 * MINUTE);
  expect((await next()).output).toContain('Nothing was changed');
  expect(api.names()).toHaveLength(2);
});

it('the script adds a next key when all other keys have begun to sign', async () => {
  api.put({ '20250101T0000Z-old.pem': 'b2xk' });
  expect((await next()).code).toBe(0);
  expect(api.names()).toHaveLength(2);
});

it('the script does not overwrite a Secret that was changed meanwhile', async () => {
  api.meanwhile = () => {
    api.put({ '20250101T0000Z-theirs.pem': 'dGhlaXJz' });
  };
  const { code, output } = await first();
  expect([code, output]).toEqual([1, expect.stringContaining('409 the Secret was changed meanwhile')]);
  expect(api.secret?.data).toEqual({ '20250101T0000Z-theirs.pem': 'dGhlaXJz' });
  expect(output).not.toContain('dGhlaXJz');
});

it('the script does not create a missing Secret', async () => {
  api.secret = undefined;
  const { code, output } = await first();
  expect([code, output]).toEqual([1, expect.stringContaining('make an empty one first')]);
  expect(api.secret).toBeUndefined();
});

it.each([403, 500])('the script reports the response %i without its body', async (status) => {
  api.put({ '20250101T0000Z-theirs.pem': 'dGhlaXJz' });
  api.refusal = status;
  const { code, output } = await first();
  expect(code).toBe(1);
  expect(output).toMatch(new RegExp(`^No key was made: GET otp-login-signing-keys: ${status}`));
  expect(output).not.toContain('dGhlaXJz');
});

it('the script does not send its token to a server of another authority', async () => {
  server.close();
  await once(server, 'close');
  await serve(selfSignedCertificate());
  const { code } = await first();
  expect(code).toBe(1);
  expect(api.asked).toEqual([]);
});

it.each([[['third', 'otp-login-signing-keys']], [['first', '../pods']], [['first', '']]])(
  'the script refuses the arguments %j',
  async (parameters) => {
    const { code, output } = await run(...parameters);
    expect([code, output]).toEqual([1, expect.stringContaining('say first or next')]);
    expect(api.asked).toEqual([]);
  },
);
