import { service } from './page.js';

/** A call of the page to its own address, with the parameters of that address. */
export async function callOwn(path: string, more: object): Promise<{ status: number; body: any }> {
  const parameters: Record<string, string | string[]> = {};
  const given = new URLSearchParams(location.search);
  // A parameter that is there twice is sent as a list, which the service refuses.
  for (const name of given.keys()) {
    const values = given.getAll(name);
    parameters[name] = values.length > 1 ? values : values[0]!;
  }
  const response = await fetch(service + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...parameters, ...more }),
  });
  return { status: response.status, body: await response.json().catch(() => ({})) };
}

/** Goes back to the app. `login`: the user has to log in first. */
export async function authorize(): Promise<'gone' | 'login' | 'refused'> {
  const more = { requested_at: document.documentElement.dataset.authorize };
  const { status, body } = await callOwn('oauth/authorize', more).catch(() => ({ status: 0, body: {} }));
  if (body.location) {
    // In place of this page: the way back in the browser's history must not lead into the login again.
    location.replace(body.location);
    return 'gone';
  }
  return status === 400 ? 'refused' : 'login';
}
