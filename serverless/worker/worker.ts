import { DurableObject } from 'cloudflare:workers';
import { createApp } from '../core/app';
import { Edition } from '../core/edition';
import { log } from '../core/log';
import { readSettings } from '../core/settings';
import { runStep, type Command, type StepName, type Store } from '../core/steps';
import { unavailable } from '../core/unavailable';

interface Stub {
  run(name: string, command: unknown): Promise<unknown>;
}

type Environment = Record<string, string | undefined> & {
  DOCUMENTS: unknown;
};

/**
 * One document, in a Durable Object of its own. The name of the object has the pseudonym of a number or user, so Cloudflare
 * never sees a phone number as a name.
 */
export class Document extends DurableObject {
  private ready = false;

  /** Runs a step. There is no await between the read and the write, so no other step comes in between. */
  run<Name extends StepName>(name: Name, command: Command<Name>): unknown {
    const { storage } = this.ctx;
    if (!this.ready) {
      storage.sql.exec(
        'CREATE TABLE IF NOT EXISTS document (id INTEGER PRIMARY KEY, body TEXT NOT NULL, expires INTEGER NOT NULL)',
      );
      this.ready = true;
    }
    const now = Date.now();
    const [row] = storage.sql.exec('SELECT body, expires FROM document WHERE id = 1').toArray();
    const body = row !== undefined && Number(row.expires) >= now ? String(row.body) : undefined;
    const outcome = runStep(name, body, command, now);
    if (outcome.body !== undefined) {
      storage.sql.exec(
        'INSERT INTO document (id, body, expires) VALUES (1, ?, ?) ' +
          'ON CONFLICT (id) DO UPDATE SET body = excluded.body, expires = excluded.expires',
        outcome.body,
        outcome.expires,
      );
      // The output gate holds the answer until both writes are on disk.
      void storage.setAlarm(outcome.expires + 1_000);
    }
    return outcome.answer;
  }

  /** Each document ends: nothing of a number stays when nothing of it counts any more. */
  async alarm(): Promise<void> {
    await this.ctx.storage.deleteAll();
    this.ready = false;
  }
}

class Documents implements Store {
  constructor(private readonly namespace: { idFromName(name: string): unknown; get(id: unknown): Stub }) {}

  async run<Name extends StepName>(key: string, name: Name, command: Command<Name>): Promise<never> {
    const stub = this.namespace.get(this.namespace.idFromName(key));
    return (await stub.run(name, command)) as never;
  }
}

let app: ReturnType<typeof createApp> | undefined;

async function make(environment: Environment): Promise<ReturnType<typeof createApp>> {
  const { DOCUMENTS, ...bindings } = environment;
  const texts = Object.entries(bindings).filter(([, value]) => typeof value === 'string');
  const settings = await readSettings(Object.fromEntries(texts));
  for (const warning of settings.warnings) log('warn', warning);
  const store = new Documents(DOCUMENTS as ConstructorParameters<typeof Documents>[0]);
  // Cloudflare writes this header itself, so a client cannot choose its address.
  return createApp(new Edition(settings, store), (context) => context.req.header('cf-connecting-ip'));
}

export default {
  async fetch(request: Request, environment: Environment): Promise<Response> {
    try {
      // The bindings of an isolate never change. A failed start is not kept: the next request tries again. No promise is kept
      // either: the runtime forbids one request to wait for the work of another.
      app ??= await make(environment);
      return await app.fetch(request);
    } catch (error) {
      return unavailable(error);
    }
  },
};
