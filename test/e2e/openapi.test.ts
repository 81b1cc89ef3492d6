import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { ERROR_CODES } from '../../src/errors/api-error';
import packageJson from '../../package.json';
import { service } from '../support/service';
import {
  call,
  login,
  startInstance,
  startWorld,
  statusAndCode,
  type Variables,
  type World,
} from '../support/world';

const ADMIN_TOKENS = `ops:${'t'.repeat(32)}`;

/** What these tests read of OpenAPI 3.0. */
interface Schema {
  $ref?: string;
  type?: string;
  enum?: unknown[];
  required?: string[];
  properties?: Record<string, Schema>;
  items?: Schema;
  pattern?: string;
  example?: unknown;
}
interface Content {
  schema: Schema;
  examples?: Record<string, { value: unknown }>;
}
interface Response {
  description: string;
  content?: Record<string, Content>;
  headers?: Record<string, unknown>;
}
interface Operation {
  summary?: string;
  operationId?: string;
  security?: Record<string, string[]>[];
  requestBody?: { content: Record<string, Content> };
  responses: Record<string, Response>;
}
interface Document {
  openapi: string;
  info: { version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema>; securitySchemes: Record<string, unknown> };
}

const PROBLEM = 'application/problem+json';
const REDOCLY = join(__dirname, '../../node_modules/.bin/redocly');

let world: World;
let document: Document;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'otp-login-openapi-'));
  world = await startWorld({ variables: { ADMIN_TOKENS } });
  document = (await call('GET', `${world.url}/docs-json`)).body as Document;
});
afterAll(async () => {
  await world.close();
  rmSync(folder, { recursive: true, force: true });
});

/** `[method, path, operation]` of everything that is documented. */
function operations(): [string, string, Operation][] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, string, Operation] => [
      method.toUpperCase(),
      path,
      operation,
    ]),
  );
}

const operation = (id: string): Operation =>
  operations().find(([, , { operationId }]) => operationId === id)![2];

function resolved(schema: Schema): Schema {
  const name = schema.$ref?.replace('#/components/schemas/', '');
  return name === undefined ? schema : document.components.schemas[name]!;
}

const PLACEHOLDERS: Record<string, unknown> = { string: 'string', integer: 0, number: 0, boolean: true };

/** The example as Swagger UI puts it together where none is written: property by property, optional ones too. */
function exampleOf(given: Schema): unknown {
  const schema = resolved(given);
  if (schema.example !== undefined) return schema.example;
  if (schema.enum) return schema.enum[0];
  if (schema.type !== undefined && schema.type in PLACEHOLDERS) return PLACEHOLDERS[schema.type];
  if (schema.type === 'array') return [exampleOf(schema.items!)];
  return Object.fromEntries(
    Object.entries(schema.properties ?? {}).map(([name, property]) => [name, exampleOf(property)]),
  );
}

/** What Swagger UI shows: the first example that is written for the whole. */
function shown({ schema, examples }: Content): unknown {
  const [written] = Object.values(examples ?? {});
  return written === undefined ? exampleOf(schema) : written.value;
}

const jsonBody = ({ requestBody }: Operation): Content => requestBody!.content['application/json']!;
const jsonAnswer = ({ responses }: Operation): Schema =>
  responses['200']!.content!['application/json']!.schema;

/** Fails unless the value is what the schema says, with no member more. */
function expectShape(value: unknown, given: Schema, path = 'body'): void {
  const schema = resolved(given);
  const found = Array.isArray(value) ? 'array' : typeof value;
  expect([path, found]).toEqual([path, schema.type === 'integer' ? 'number' : schema.type]);
  if (schema.type === 'integer') expect([path, Number.isInteger(value)]).toEqual([path, true]);
  if (schema.enum) expect(schema.enum).toContain(value);
  if (schema.pattern) expect(value).toMatch(new RegExp(schema.pattern));
  if (Array.isArray(value)) {
    for (const item of value) expectShape(item, schema.items!, `${path}[]`);
  } else if (schema.properties) {
    const members = value as Record<string, unknown>;
    expect(Object.keys(members)).toEqual(expect.arrayContaining(schema.required ?? []));
    for (const [name, member] of Object.entries(members)) {
      expect([path, Object.keys(schema.properties)]).toEqual([path, expect.arrayContaining([name])]);
      expectShape(member, schema.properties[name]!, `${path}.${name}`);
    }
  }
}

describe('the OpenAPI document', () => {
  it('redocly lint finds no error and no warning in the OpenAPI document', async () => {
    const file = join(folder, 'openapi.json');
    writeFileSync(file, JSON.stringify(document, null, 2));
    const printed = await new Promise<string>((resolve) => {
      const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' };
      // Its exit code says errors only; the totals say warnings too.
      execFile(REDOCLY, ['lint', '--format=json', file], { cwd: folder, env }, (_error, stdout) => {
        resolve(stdout);
      });
    });
    const { totals, problems } = JSON.parse(printed) as { totals: unknown; problems: unknown[] };
    expect(problems).toEqual([]);
    expect(totals).toMatchObject({ errors: 0, warnings: 0 });
  });

  it('the OpenAPI document has the version of package.json', () => {
    expect(document.info.version).toBe(packageJson.version);
  });

  it('the OpenAPI document gives every operation a unique id, a summary and its security', () => {
    expect(operations().length).toBeGreaterThanOrEqual(7);
    for (const [method, path, { operationId, summary, security }] of operations()) {
      expect([method, path, typeof operationId, typeof summary]).toEqual([method, path, 'string', 'string']);
      expect(Array.isArray(security)).toBe(true);
      for (const scheme of security!.flatMap((requirement) => Object.keys(requirement)))
        expect(Object.keys(document.components.securitySchemes)).toContain(scheme);
    }
    const names = operations().map(([, , { operationId }]) => operationId);
    expect(new Set(names).size).toBe(names.length);
  });

  it('the OpenAPI document says correctly which operations need credentials', async () => {
    for (const [method, path, { security, requestBody, responses }] of operations()) {
      const [type] = Object.keys(requestBody?.content ?? {});
      const headers = type === undefined ? undefined : { 'content-type': type };
      const body = type === undefined ? undefined : type === 'application/json' ? '{}' : 'x=y';
      const answer = await call(method, world.url + path.replace(/\{\w+\}/g, 'x'), body, headers);
      const refused = ['unauthenticated', 'invalid_client'].includes(answer.body?.code ?? answer.body?.error);
      // An empty requirement among others says that the credentials are optional.
      const needed = security!.length > 0 && security!.every((each) => Object.keys(each).length > 0);
      expect([method, path, refused]).toEqual([method, path, needed]);
      if (needed) expect(Object.keys(responses)).toContain('401');
    }
  });

  it('the OpenAPI document gives every operation one success and its errors as problem documents', () => {
    for (const [, path, { responses }] of operations()) {
      const statuses = Object.keys(responses);
      expect(statuses.filter((status) => status.startsWith('2'))).toHaveLength(1);
      expect(statuses.filter((status) => /^[45]/.test(status)).length).toBeGreaterThan(0);
      for (const [status, { content, headers, description }] of Object.entries(responses)) {
        expect(description).not.toBe('');
        if (status === '429' || status === '503')
          expect([path, status, Object.keys(headers ?? {})]).toEqual([path, status, ['Retry-After']]);
        if (!/^[45]/.test(status)) continue;
        // A probe says how the process is in both cases; whoever probes reads the status only. The errors of OAuth are
        // those of its RFCs.
        const isProbe = path.startsWith('/health/') && status === '503';
        const type = isProbe || path.startsWith('/oauth/') ? 'application/json' : PROBLEM;
        expect([path, status, Object.keys(content ?? {})]).toEqual([path, status, [type]]);
      }
    }
  });

  it('the OpenAPI document lists exactly the error codes of the service', () => {
    const codes = document.components.schemas.Problem?.properties?.code?.enum;
    expect(codes).toEqual(Object.keys(ERROR_CODES));
  });

  it('the OpenAPI document shows every error of an operation under its status, as the service sends it', () => {
    for (const [, , { responses }] of operations()) {
      for (const [status, { content, description }] of Object.entries(responses)) {
        const problem = content?.[PROBLEM];
        if (problem === undefined) continue;
        const examples = Object.entries(problem.examples ?? {});
        expect(examples.length).toBeGreaterThan(0);
        for (const [code, { value }] of examples) {
          expect(description).toContain(`\`${code}\``);
          expect(value).toMatchObject({ code, status: Number(status) });
          expect(ERROR_CODES).toHaveProperty(code, expect.objectContaining({ status: Number(status) }));
          expectShape(value, problem.schema);
        }
      }
    }
  });

  it('every operation answers 413 to headers that are too large, as documented', async () => {
    for (const [method, path, { responses }] of operations()) {
      const answer = await new Promise<[number | undefined, string | undefined]>((resolve, reject) => {
        httpRequest(world.url + path, { method, headers: { 'x-filler': 'x'.repeat(20_000) } }, (response) => {
          response.resume();
          resolve([response.statusCode, response.headers['content-type']]);
        })
          .on('error', reject)
          .end();
      });
      expect([path, ...answer]).toEqual([path, 413, `${PROBLEM}; charset=utf-8`]);
      expect(Object.keys(responses)).toContain('413');
    }
  });
});

describe('the examples of the document', () => {
  it('the example request of send-otp sends a code unchanged', async () => {
    const send = operation('sendOtp');
    const answer = await call('POST', `${world.url}/auth/send-otp`, shown(jsonBody(send)));
    expect(answer.status).toBe(200);
    expectShape(answer.body, jsonAnswer(send));
  });

  it('the example request of verify-otp is valid and names no real request', async () => {
    const example = shown(jsonBody(operation('verifyOtp')));
    const answer = await call('POST', `${world.url}/auth/verify-otp`, example);
    expect(statusAndCode(answer)).toEqual([410, 'otp_expired']);
  });

  it.each(['sendOtp', 'verifyOtp'])('the example request of %s has the required fields only', (id) => {
    const body = jsonBody(operation(id));
    expect(Object.keys(shown(body) as object)).toEqual(resolved(body.schema).required);
  });

  it('all examples of the OpenAPI document match their schemas', () => {
    for (const [, , { requestBody, responses }] of operations()) {
      const contents = [requestBody?.content, responses['200']?.content];
      for (const content of contents.flatMap((each) => Object.values(each ?? {}))) {
        if (content.schema.$ref) expectShape(shown(content), content.schema);
      }
    }
  });
});

describe('the answers of the service', () => {
  it('the responses of the service match the OpenAPI document', async () => {
    const verified = await login(world);
    expectShape(verified.body, jsonAnswer(operation('verifyOtp')));
    const authorization = `Bearer ${verified.body.accessToken}`;
    const me = await call('GET', `${world.url}/auth/me`, undefined, { authorization });
    expectShape(me.body, jsonAnswer(operation('me')));
    for (const [id, path] of [
      ['jwks', '/.well-known/jwks.json'],
      ['live', '/health/live'],
      ['ready', '/health/ready'],
      ['startup', '/health/startup'],
    ] as const) {
      const answer = await call('GET', world.url + path);
      expect(answer.status).toBe(200);
      expectShape(answer.body, jsonAnswer(operation(id)));
    }
  });

  it('all routes of the service are in the OpenAPI document, except metrics and the documentation itself', async () => {
    const served = new Set<string>();
    const silent = new Writable({
      write(_chunk, _encoding, done) {
        done();
      },
    });
    const environment = {
      NODE_ENV: 'test',
      REDIS_URL: world.redis.url,
      STARTMESSAGING_API_KEY: 'x',
      ADMIN_TOKENS,
    };
    const app = await service().createApp({ environment, logs: silent });
    // The controllers' routes are made when the application starts, after this.
    app
      .getHttpAdapter()
      .getInstance()
      .addHook('onRoute', ({ method, url }) => {
        for (const each of [method].flat()) if (each !== 'HEAD') served.add(`${each} ${url}`);
      });
    await app.init();
    await app.close();

    const documented = operations().map(([method, path]) => `${method} ${path.replace(/\{(\w+)\}/g, ':$1')}`);
    const others = [...served].filter(
      (route) => !/^(GET \/metrics|GET \/docs.*|GET \/(login|account|pages\/:name)?|OPTIONS \*)$/.test(route),
    );
    expect(others.sort()).toEqual(documented.sort());
    expect([...served]).toContain('GET /metrics');
  });
});

describe('the documentation', () => {
  const PATHS = ['/docs', '/docs/', '/docs/index.html', '/docs/swagger-ui.css', '/docs-json', '/docs-yaml'];

  const statusesAt = (url: string): Promise<number[]> =>
    Promise.all(PATHS.map(async (path) => (await call('GET', url + path)).status));

  async function statuses(variables: Variables): Promise<number[]> {
    const settings = { REDIS_URL: world.redis.url, STARTMESSAGING_BASE_URL: world.upstream.url };
    const instance = await startInstance({ ...settings, ...variables });
    try {
      return await statusesAt(instance.url);
    } finally {
      await instance.close();
    }
  }

  /** Everything that production asks for. */
  function production(): Variables {
    const { privateKey } = generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      publicKeyEncoding: { type: 'spki', format: 'pem' },
    });
    const keys = mkdtempSync(join(folder, 'keys-'));
    writeFileSync(join(keys, '20250101T0000Z-test.pem'), privateKey);
    return {
      NODE_ENV: 'production',
      ISSUER: 'https://login.example.com',
      STARTMESSAGING_CONTRACT: 'provider',
      JWT_KEYS_DIR: keys,
      BUDGET_PAISE_PER_DAY: '100000',
    };
  }

  it('the documentation is served outside production', async () => {
    expect(await statusesAt(world.url)).toEqual(PATHS.map(() => 200));
  });

  it('the documentation is not served with SWAGGER=false', async () => {
    expect(await statuses({ SWAGGER: 'false' })).toEqual(PATHS.map(() => 404));
  });

  it('the documentation is not served in production', async () => {
    expect(await statuses(production())).toEqual(PATHS.map(() => 404));
  });

  it('the documentation is served in production with SWAGGER=true', async () => {
    expect(await statuses({ ...production(), SWAGGER: 'true' })).toEqual(PATHS.map(() => 200));
  });
});
