import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { EDITION } from '../support/edition';

// The files that are deployed: the two bundles and the templates.

const ROOT = join(EDITION, '..');
const read = (path: string): string => readFileSync(join(EDITION, path), 'utf8');
const packed = (path: string): number => gzipSync(read(path), { level: 9 }).length;

interface Template {
  Resources: Record<string, { Type: string; Properties: Record<string, unknown> }>;
}
const template = JSON.parse(read('lambda/template.json')) as Template;

it('the Worker is under 100 KB and the Lambda function under 300 KB, compressed', () => {
  expect(packed('dist/worker.js')).toBeLessThan(100 * 1_024);
  expect(packed('dist/lambda.js')).toBeLessThan(300 * 1_024);
});

it('the sources of the edition compile', () => {
  const { stdout } = spawnSync(
    process.execPath,
    [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', EDITION],
    { encoding: 'utf8' },
  );
  expect(stdout).toBe('');
});

it('the bundle of the Lambda function needs nothing beside itself', () => {
  const external = [...read('dist/lambda.js').matchAll(/\brequire\("([^"]+)"\)/g)].map(([, name]) => name!);
  const { builtinModules } = process.getBuiltinModule('node:module');
  const missing = external.filter((name) => !builtinModules.includes(name.replace('node:', '')));
  // The SDK loads it for requests over several regions only, which the edition never sends.
  expect(missing.filter((name) => name !== '@aws-sdk/signature-v4-crt')).toEqual([]);
});

it('the template knows only properties that CloudFormation knows, and all that it requires', () => {
  const types = [...new Set(Object.values(template.Resources).map(({ Type }) => Type))];
  const script = `
    const { loadAwsServiceSpecSync } = require('@aws-cdk/aws-service-spec');
    const db = loadAwsServiceSpecSync();
    const found = {};
    for (const type of ${JSON.stringify(types)}) {
      const [resource] = db.lookup('resource', 'cloudFormationType', 'equals', type);
      const properties = Object.entries(resource.properties);
      found[type] = { all: properties.map(([name]) => name), required: properties.filter(([, { required }]) => required).map(([name]) => name) };
    }
    console.log(JSON.stringify(found));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { cwd: EDITION, encoding: 'utf8' });
  expect(stderr).not.toMatch(/Error/);
  const known = JSON.parse(stdout) as Record<string, { all: string[]; required: string[] }>;
  const faults = Object.entries(template.Resources).flatMap(([name, { Type, Properties }]) => {
    const { all, required } = known[Type]!;
    const given = Object.keys(Properties);
    return [
      ...given.filter((each) => !all.includes(each)).map((each) => `${name}: ${each} is unknown`),
      ...required.filter((each) => !given.includes(each)).map((each) => `${name}: ${each} is missing`),
    ];
  });
  expect(faults).toEqual([]);
});

it('the Function URL is open to callers: it has both permissions that AWS asks for', () => {
  const permissions = Object.values(template.Resources).filter(
    ({ Type }) => Type === 'AWS::Lambda::Permission',
  );
  expect(permissions.map(({ Properties }) => Properties)).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ Action: 'lambda:InvokeFunctionUrl', FunctionUrlAuthType: 'NONE' }),
      expect.objectContaining({ Action: 'lambda:InvokeFunction', InvokedViaFunctionUrl: true }),
    ]),
  );
});

it('the function may read its secret, and read and write its table, and nothing more', () => {
  const { Policies } = template.Resources.Role!.Properties as {
    Policies: { PolicyDocument: { Statement: { Action: string | string[] }[] } }[];
  };
  const actions = Policies.flatMap(({ PolicyDocument }) => PolicyDocument.Statement).flatMap(
    ({ Action }) => Action,
  );
  expect(actions.sort()).toEqual([
    'dynamodb:GetItem',
    'dynamodb:PutItem',
    'logs:CreateLogStream',
    'logs:PutLogEvents',
    'secretsmanager:GetSecretValue',
  ]);
});
