// Starts the Lambda target on this machine: `node desk/lambda.mjs` with the settings as JSON in DESK_SETTINGS. Prints one line of
// JSON with the addresses of the Function URL and of the control, by which tests cut responses and kill instances.
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CREDENTIALS, startDynamoDb, startSecretsManager } from './aws.mjs';
import { Lambda, listen, readBody } from './runtime.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const TABLE = 'otp-login';
const { DESK_SETTINGS = '{}', DESK_INSTANCES = '6', DESK_SKEW_MS, DESK_PORT = '0' } = process.env;

const database = await startDynamoDb(TABLE);
const secrets = await startSecretsManager(DESK_SETTINGS);
const logs = [];
const lambda = new Lambda({
  most: Number(DESK_INSTANCES),
  skewMs: Number(DESK_SKEW_MS ?? 0),
  command: [
    process.execPath,
    '--require',
    join(HERE, 'wire.cjs'),
    join(HERE, '..', 'node_modules', 'aws-lambda-ric', 'index.mjs'),
  ],
  environment: {
    ...CREDENTIALS,
    PATH: process.env.PATH,
    AWS_ENDPOINT_URL_DYNAMODB: database.url,
    AWS_ENDPOINT_URL_SECRETS_MANAGER: secrets.url,
    SECRET_ID: 'otp-login',
    TABLE_NAME: TABLE,
    _HANDLER: 'lambda.handler',
    LAMBDA_TASK_ROOT: join(HERE, '..', 'dist'),
    AWS_LAMBDA_FUNCTION_NAME: 'otp-login',
    AWS_LAMBDA_FUNCTION_VERSION: '1',
    AWS_LAMBDA_LOG_GROUP_NAME: 'otp-login',
    AWS_LAMBDA_LOG_STREAM_NAME: 'otp-login',
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '512',
  },
  log: (chunk) => logs.push(chunk.toString()),
});
const port = await listen(lambda.server, Number(DESK_PORT));

/** `POST /faults {lose, refuse}`, `POST /secret {value, refuse}`, `POST /remove`, `GET /items`, `GET /logs`. */
const control = createServer((request, response) => {
  void readBody(request).then(async (body) => {
    const given = body.length > 0 ? JSON.parse(body.toString()) : {};
    let answer = {};
    if (request.url === '/faults') Object.assign(database.faults, given);
    else if (request.url === '/secret') Object.assign(secrets.secret, given);
    else if (request.url === '/remove') lambda.removeAll();
    else if (request.url === '/items') answer = await database.items();
    else if (request.url === '/logs') answer = logs;
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer));
  });
});
const controlPort = await listen(control);

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(0));
process.on('exit', () => lambda.removeAll());
process.stdout.on('error', () => process.exit(0));
// The parent holds stdin open: when it ends, this process ends too.
process.stdin.resume().on('end', () => process.exit(0));
console.log(JSON.stringify({ url: `http://127.0.0.1:${port}`, control: `http://127.0.0.1:${controlPort}` }));
