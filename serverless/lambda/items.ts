import { randomBytes } from 'node:crypto';
import {
  ConditionalCheckFailedException,
  DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
} from '@aws-sdk/client-dynamodb';
import { runStep, type Answer, type Command, type StepName, type Store } from '../core/steps';

/** Longer than any step waits for the writers before it. */
const GIVE_UP_MS = 10_000;
const SHORTEST_PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 100;
/** Marks of earlier writes that an item keeps. More writers do not come between a write and its repeat. */
const MOST_MARKS = 20;

interface Found {
  body: string | undefined;
  /** The mark of the last write; undefined if there is no item. */
  version: string | undefined;
  marks: string[];
}

/** Documents as items of one DynamoDB table. A step is a read, the step itself, and a write on condition of the version. */
export class Items implements Store {
  private readonly client = new DynamoDBClient({
    maxAttempts: 3,
    // The client has no timeouts by default: a connection that died while the function was frozen would hang.
    requestHandler: { connectionTimeout: 1_000, requestTimeout: 2_000 },
  });

  constructor(private readonly table: string) {}

  async run<Name extends StepName>(key: string, name: Name, command: Command<Name>): Promise<Answer<Name>> {
    const until = Date.now() + GIVE_UP_MS;
    for (
      let pauseMs = SHORTEST_PAUSE_MS;
      Date.now() < until;
      pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)
    ) {
      const found = await this.read(key);
      const { answer, body, expires } = runStep(name, found.body, command, Date.now());
      // A refusal writes nothing.
      if (body === undefined) return answer;
      if (await this.write(key, found, body, expires)) return answer;
      // Another writer was first. Jittered, so that writers do not meet again.
      await new Promise((resolve) => setTimeout(resolve, Math.random() * pauseMs));
    }
    throw new Error(`The document was busy for too long: ${name}`);
  }

  private async read(key: string): Promise<Found> {
    const { Item: item } = await this.client.send(
      new GetItemCommand({ TableName: this.table, Key: { key: { S: key } }, ConsistentRead: true }),
    );
    if (item === undefined) return { body: undefined, version: undefined, marks: [] };
    // DynamoDB deletes an item up to days after its end: until then it counts as absent.
    const ended = Number(item.ends?.N ?? 0) < Date.now();
    const marks = item.marks?.S?.split(' ') ?? [];
    return { body: ended ? undefined : item.body?.S, version: item.version?.S, marks };
  }

  /** False if another writer was first. */
  private async write(
    key: string,
    { version, marks }: Found,
    body: string,
    expires: number,
  ): Promise<boolean> {
    const mark = randomBytes(9).toString('base64url');
    const put = new PutItemCommand({
      TableName: this.table,
      Item: {
        key: { S: key },
        version: { S: mark },
        marks: { S: [mark, ...marks].slice(0, MOST_MARKS).join(' ') },
        body: { S: body },
        ends: { N: String(Math.ceil(expires)) },
        ttl: { N: String(Math.ceil(expires / 1_000) + 1) },
      },
      // A random version, and no number: an item that was deleted and made again must not look like the one that was read.
      ConditionExpression: version === undefined ? 'attribute_not_exists(#k)' : '#v = :version',
      ExpressionAttributeNames: version === undefined ? { '#k': 'key' } : { '#v': 'version' },
      ...(version === undefined ? {} : { ExpressionAttributeValues: { ':version': { S: version } } }),
    });
    try {
      await this.client.send(put);
      return true;
    } catch (error) {
      if (!(error instanceof ConditionalCheckFailedException)) throw error;
      // The response to our own write may have been lost: the SDK then repeats the write, and the repeat fails. Without the
      // mark the step would run twice, and a right code would be answered as used.
      return (await this.read(key)).marks.includes(mark);
    }
  }
}
