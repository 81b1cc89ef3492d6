import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Account } from './account';
import type { Api } from './api';
import { readFaultScript, readSettings } from './control.dto';
import type { Faults } from './faults';
import type { Inbox } from './inbox';
import { write } from './misbehave';
import { openApiDocument } from './openapi';
import { listPresets } from './presets';
import { isJson, readBody } from './requests';

/** The parts that the control routes use. */
export interface Desk {
  account: Account;
  faults: Faults;
  api: Api;
  inbox: Inbox;
  startOver: () => Promise<void>;
}

type Route = (desk: Desk, input: { query: URLSearchParams; body: unknown }) => Reply | Promise<Reply>;
interface Reply {
  status: number;
  body: unknown;
}

const OK = (body: unknown) => ({ status: 200, body });
const DONE = { status: 204, body: '' };

const routes: Record<string, Route> = {
  'GET /_emulator/messages': ({ account }, { query }) => {
    // Unescaped in a query, the + of +91 reads as a space.
    const phoneNumber = query.get('phoneNumber')?.replace(/^ /, '+');
    const wanted = account.messages.filter((sent) => !phoneNumber || sent.phoneNumber === phoneNumber);
    return OK({ messages: wanted });
  },
  'GET /_emulator/calls': ({ api }) => OK({ calls: api.calls }),
  'GET /_emulator/openapi.json': () => OK(openApiDocument()),
  'GET /_emulator/presets': () => OK({ presets: listPresets() }),
  'GET /_emulator/faults': ({ faults }) => OK({ faults: faults.list() }),
  'POST /_emulator/faults': ({ faults }, { body }) => {
    faults.add(readFaultScript(body));
    return { status: 201, body: { faults: faults.list() } };
  },
  'DELETE /_emulator/faults': ({ faults }) => {
    faults.clear();
    return DONE;
  },
  'GET /_emulator/settings': ({ account }) => OK(account.settings),
  'PATCH /_emulator/settings': ({ account }, { body }) =>
    OK(Object.assign(account.settings, readSettings(body))),
  'DELETE /_emulator': async ({ startOver }) => {
    await startOver();
    return DONE;
  },
};

/** Serves the inbox page, its stream of events, and the routes under `/_emulator/` that script the emulator. */
export async function serveControl(
  desk: Desk,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  // SMS contain codes: no cache may keep them, and no script, frame or image of another site may read them.
  response.setHeader('Cache-Control', 'no-store');
  response.setHeader('Cross-Origin-Resource-Policy', 'same-origin');
  response.setHeader('X-Content-Type-Options', 'nosniff');
  const { method = '', url = '' } = request;
  if (method === 'GET' && path === '/') {
    desk.inbox.showPage(response);
    return;
  }
  if (method === 'GET' && path === '/_emulator/events') {
    desk.inbox.follow(response);
    return;
  }
  const name = `${method} ${path}`;
  const route = Object.hasOwn(routes, name) ? routes[name] : undefined;
  if (!route) {
    write(response, {
      status: 404,
      body: { error: `There is no ${name}. There are: ${Object.keys(routes).join(', ')}` },
    });
    return;
  }
  const body = await readBody(request);
  // Cross-site request forgery: a form on any web page may POST text here, but it cannot send this content type
  // without asking first, and is never told that it may.
  if (body !== undefined && !isJson(request)) {
    write(response, { status: 400, body: { error: 'Send JSON, with Content-Type: application/json' } });
    return;
  }
  try {
    const query = new URLSearchParams(url.split('?', 2)[1]);
    write(response, await route(desk, { query, body }));
    desk.inbox.changed();
  } catch (error) {
    write(response, { status: 400, body: { error: (error as Error).message } });
  }
}
