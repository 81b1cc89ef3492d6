import { useSyncExternalStore } from 'react';
import type { Login, OtpLogin, User } from './types.js';

const UNKNOWN: Login = { state: 'unknown' };
const ofServer = (): Login => UNKNOWN;
type Watch = Parameters<typeof useSyncExternalStore<Login>>;
const watches = new WeakMap<OtpLogin, Watch>();

/**
 * The login: `unknown` on the server and until the store was read, then `in` or `out`.
 *
 * @example
 * const login = useLogin(client);
 * if (login.state === 'unknown') return <Spinner />;
 */
export function useLogin(client: OtpLogin): Login {
  let watch = watches.get(client);
  if (!watch) {
    let current = UNKNOWN;
    // One for each client: React must get the same functions and the same snapshot at every render.
    watch = [
      (changed) => {
        const take = (login: Login): void => {
          current = login;
          changed();
        };
        // In an effect, and never in render: the server has no store, and the browser's first render must equal its own.
        void client.login().then(take);
        return client.onChange(take);
      },
      () => current,
      ofServer,
    ];
    watches.set(client, watch);
  }
  return useSyncExternalStore(...watch);
}

/**
 * The user; null if no user is logged in, and undefined as long as this is unknown.
 *
 * @example
 * const user = useUser(client);
 * return user ? <p>{user.phoneNumber}</p> : <LoginPage />;
 */
export function useUser(client: OtpLogin): User | null | undefined {
  const login = useLogin(client);
  return login.state === 'in' ? login.user : login.state === 'out' ? null : undefined;
}
