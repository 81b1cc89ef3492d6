// Local AWS services for the Lambda target: DynamoDB (dynalite) behind a proxy that can lose responses, and Secrets Manager.
import { createServer, request as httpRequest } from 'node:http';
import { CreateTableCommand, DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import dynalite from 'dynalite';
import { listen, readBody } from './runtime.mjs';

export const CREDENTIALS = {
  AWS_REGION: 'ap-south-1',
  AWS_ACCESS_KEY_ID: 'local',
  AWS_SECRET_ACCESS_KEY: 'local',
};

/** Starts DynamoDB with the table of the template. `faults` may change at any time. */
export async function startDynamoDb(table) {
  /** `lose`: the responses of so many writes are lost, after the write. `refuse`: every call is refused. */
  const faults = { lose: 0, refuse: false };
  const target = await listen(dynalite({ createTableMs: 0 }));
  const proxy = createServer((request, response) => {
    void readBody(request).then((body) => {
      if (faults.refuse) return request.socket.destroy();
      const { method, url, headers } = request;
      const options = { hostname: '127.0.0.1', port: target, method, path: url, headers };
      httpRequest(options, (answer) => {
        void readBody(answer).then((bytes) => {
          const isWrite = headers['x-amz-target']?.endsWith('.PutItem');
          if (isWrite && answer.statusCode === 200 && faults.lose > 0) {
            faults.lose -= 1;
            request.socket.destroy();
          } else response.writeHead(answer.statusCode, answer.headers).end(bytes);
        });
      }).end(body);
    });
  });
  const url = `http://127.0.0.1:${await listen(proxy)}`;
  const client = new DynamoDBClient({
    endpoint: url,
    region: CREDENTIALS.AWS_REGION,
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  });
  await client.send(
    new CreateTableCommand({
      TableName: table,
      AttributeDefinitions: [{ AttributeName: 'key', AttributeType: 'S' }],
      KeySchema: [{ AttributeName: 'key', KeyType: 'HASH' }],
      BillingMode: 'PAY_PER_REQUEST',
    }),
  );
  const items = async () => (await client.send(new ScanCommand({ TableName: table }))).Items;
  return { url, faults, items };
}

/** Starts Secrets Manager with one secret. */
export async function startSecretsManager(value) {
  const secret = { value, refuse: false, reads: 0 };
  const server = createServer((request, response) => {
    void readBody(request).then(() => {
      secret.reads += 1;
      if (secret.refuse) {
        response.writeHead(400, { 'Content-Type': 'application/x-amz-json-1.1' });
        response.end('{"__type":"AccessDeniedException","message":"refused"}');
        return;
      }
      response.writeHead(200, { 'Content-Type': 'application/x-amz-json-1.1' });
      response.end(JSON.stringify({ Name: 'otp-login', SecretString: secret.value }));
    });
  });
  return { url: `http://127.0.0.1:${await listen(server)}`, secret };
}
