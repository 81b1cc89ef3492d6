import type { Login, OtpLoginError, SessionInfo, User } from '@otp-login/client';
import { client, filled, find, show, spaced, start, text, textOf, timeOf } from './page.js';

/** As long as the service is told of a log-out: the page would otherwise leave before the request has left. */
const TELL_MS = 3_000;
let user: User | undefined;
let sessions: SessionInfo[] = [];
let leaving = false;

function render(): void {
  if (!user) return;
  show('account');
  find('who').textContent = spaced(user.phoneNumber);
  find('sessions').replaceChildren(...sessions.map(rowOf));
  find('log-out-others').hidden = sessions.length < 2;
  find('log-out').onclick = () => void logOut();
  find('log-out-others').onclick = () =>
    void act(async () => {
      await client.sessions.endOthers();
      await load();
      find('status').textContent = text('othersEnded');
    });
}

function rowOf(session: SessionInfo): DocumentFragment {
  const row = filled('session');
  const name = session.deviceName ?? session.device;
  row.querySelector('strong')!.textContent = name;
  const used = timeOf(session.lastUsedAt, { day: 'numeric', month: 'short' });
  const when = session.current ? text('thisDevice') : text('lastUsed', { time: used });
  row.querySelector('small')!.textContent = `${when} · ${session.address}`;
  const button = row.querySelector('button')!;
  button.setAttribute('aria-label', text('endSessionOf', { device: name }));
  button.hidden = session.current;
  button.onclick = () =>
    void act(async () => {
      await client.sessions.end(session.id);
      await load();
      document.querySelector('h1')?.focus();
    });
  return row;
}

async function load(): Promise<void> {
  // This device first.
  sessions = (await client.sessions.list()).sort((one, other) => Number(other.current) - Number(one.current));
  render();
}

async function act(work: () => Promise<void>): Promise<void> {
  find('error').textContent = '';
  try {
    await work();
  } catch (error) {
    find('error').textContent = textOf(error as OtpLoginError);
  }
}

async function logOut(): Promise<void> {
  leaving = true;
  find('main').setAttribute('aria-busy', 'true');
  find<HTMLButtonElement>('log-out').disabled = true;
  await Promise.race([client.logout(), new Promise((resolve) => setTimeout(resolve, TELL_MS))]);
  location.replace('login');
}

/** The end of the session, here or in another tab, leads to the login page, which tells the reason. */
function leave(login: Login): void {
  if (login.state === 'out' && !leaving) location.replace(`login#${login.reason ?? ''}`);
}

const knowing = client.login();
void start(render).then(async () => {
  client.onChange(leave);
  const login = await knowing;
  leave(login);
  if (login.state !== 'in') return;
  user = login.user;
  render();
  await act(load);
});
