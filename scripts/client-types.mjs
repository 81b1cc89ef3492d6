// `npm run client:types`: writes client/src/api.d.ts from the OpenAPI document of this checkout.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import prettier from 'prettier';
import { launch } from './children.mjs';
import { freePort, giveUp, prepare, ready, ROOT } from './project.mjs';
import { schemaTypes } from './schema-types.mjs';

const FILE = join(ROOT, 'client', 'src', 'api.d.ts');

prepare();
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
const service = launch(process.execPath, [join(ROOT, 'dist', 'main.js')], {
  // Not in the checkout: the service would read a developer's .env there.
  cwd: join(ROOT, 'scripts'),
  env: {
    PATH: process.env.PATH,
    NODE_ENV: 'development',
    HOST: '127.0.0.1',
    PORT: String(port),
    STARTMESSAGING_API_KEY: `sm_live_${'0'.repeat(40)}`,
    SHUTDOWN_DELAY_SECONDS: '0',
  },
});
if (!(await ready(url, () => service.exitCode !== null))) giveUp('The service did not become ready.');
const document = await (await fetch(`${url}/docs-json`)).json();
const options = await prettier.resolveConfig(FILE);
writeFileSync(FILE, await prettier.format(schemaTypes(document), { ...options, parser: 'typescript' }));
service.kill('SIGTERM');
