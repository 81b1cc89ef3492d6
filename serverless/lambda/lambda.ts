import { handle, type LambdaEvent } from 'hono/aws-lambda';
import { createApp } from '../core/app';
import { Edition } from '../core/edition';
import type { EditionSettings } from '../core/settings';
import { unavailable } from '../core/unavailable';
import { Items } from './items';
import { SecretSettings } from './secrets';

/** An event of a Function URL or of an HTTP API: payload format 2.0. */
type Event = LambdaEvent & { requestContext: { http?: { sourceIp?: string } } };
type Handler = ReturnType<typeof handle>;

const { SECRET_ID, TABLE_NAME } = process.env;
const secret = new SecretSettings(SECRET_ID ?? '');
const items = new Items(TABLE_NAME ?? '');
let made: { settings: EditionSettings; handler: Handler } | undefined;

/** The handler of the current settings: a changed secret makes a new one. */
async function currentHandler(): Promise<Handler> {
  const settings = await secret.get();
  if (made?.settings !== settings) {
    // AWS writes the address into the event, so a client cannot choose it.
    const app = createApp(new Edition(settings, items), ({ env }) => {
      const { event } = env as { event: Event };
      return event.requestContext.http?.sourceIp;
    });
    made = { settings, handler: handle(app) };
  }
  return made.handler;
}

/** Answers one request. All work ends before the answer: Lambda freezes the process then. */
export async function handler(event: Event): Promise<Awaited<ReturnType<Handler>>> {
  try {
    return await (
      await currentHandler()
    )(event);
  } catch (error) {
    const response = unavailable(error);
    return {
      statusCode: response.status,
      headers: Object.fromEntries(response.headers),
      body: await response.text(),
      isBase64Encoded: false,
    };
  }
}

// The first read begins at the start, when Lambda gives the function more CPU. A failure is told at the first request.
void secret.get().catch(() => undefined);
