import { callOwn } from './authorize.js';
import { client, find, show, start, text } from './page.js';

const { dataset } = document.documentElement;
let screen = dataset.refused === undefined ? '' : 'refused';

function render(): void {
  if (!screen) return;
  show(screen);
  if (screen === 'logout') find('log-out').onclick = () => void logOut({ confirmed: true });
  document.querySelector('h1')?.focus();
}

async function logOut(more: object): Promise<void> {
  const { status, body } = await callOwn('oauth/logout', more).catch(() => ({ status: 0, body: {} }));
  screen = status === 200 && !body.confirm ? 'loggedOut' : status === 400 ? 'refused' : 'logout';
  if (screen === 'loggedOut') {
    // The page's own memory of the user, in all tabs.
    await client.logout();
    if (body.location) return location.replace(body.location);
  }
  render();
  if (status !== 200 && screen === 'logout') find('error').textContent = text('error.trouble');
}

void start(render).then(() => {
  if (!screen) void logOut({});
});
