import type { Store } from './types.js';

/**
 * A store that forgets everything with the page.
 *
 * @example
 * const client = createOtpLogin({ url, store: memoryStore() });
 */
export function memoryStore(): Store {
  const values = new Map<string, string>();
  return {
    get: (key) => values.get(key) ?? null,
    set: (key, value) => void values.set(key, value),
    remove: (key) => void values.delete(key),
  };
}

interface Area<Text> {
  getItem(key: string): Text;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}
const storeOf = (area: Area<string | null | Promise<string | null>>): Store => ({
  get: (key) => area.getItem(key),
  set: (key, value) => area.setItem(key, value),
  remove: (key) => area.removeItem(key),
});

function webStore(name: 'localStorage' | 'sessionStorage'): Store {
  try {
    // A browser that forbids storage throws here.
    const area = globalThis[name];
    void area.length;
    return {
      ...storeOf(area),
      subscribe(_, changed) {
        // Any key: a change of another one is no change to the reader.
        addEventListener('storage', changed);
        return () => removeEventListener('storage', changed);
      },
    };
  } catch {
    return memoryStore();
  }
}

/**
 * `localStorage`, and memory where the browser forbids it or there is none. Tabs see each other's changes.
 *
 * @example
 * const client = createOtpLogin({ url, store: localStore() });
 */
export const localStore = (): Store => webStore('localStorage');

/**
 * `sessionStorage`: one tab, until it is closed.
 *
 * @example
 * const flow = createLoginFlow(client, { store: sessionStore() });
 */
export const sessionStore = (): Store => webStore('sessionStorage');

/**
 * `expo-secure-store`: the keychain of iOS and the keystore of Android. It refuses a `:` in the option `key`.
 *
 * @example
 * import * as SecureStore from 'expo-secure-store';
 * const client = createOtpLogin({ url, store: secureStore(SecureStore) });
 */
export function secureStore(secure: {
  getItemAsync(key: string): Promise<string | null>;
  setItemAsync(key: string, value: string): Promise<void>;
  deleteItemAsync(key: string): Promise<void>;
}): Store {
  return {
    get: (key) => secure.getItemAsync(key),
    set: (key, value) => secure.setItemAsync(key, value),
    remove: (key) => secure.deleteItemAsync(key),
  };
}

/**
 * `@react-native-async-storage/async-storage`. It is not encrypted: prefer `secureStore`.
 *
 * @example
 * import AsyncStorage from '@react-native-async-storage/async-storage';
 * const client = createOtpLogin({ url, store: asyncStore(AsyncStorage) });
 */
export const asyncStore: (storage: Area<Promise<string | null>>) => Store = storeOf;

/**
 * `react-native-mmkv`. Open it with an encryption key.
 *
 * @example
 * import { MMKV } from 'react-native-mmkv';
 * const client = createOtpLogin({ url, store: mmkvStore(new MMKV({ id: 'login', encryptionKey })) });
 */
export function mmkvStore(mmkv: {
  getString(key: string): string | undefined;
  set(key: string, value: string): void;
  delete(key: string): void;
}): Store {
  return {
    get: (key) => mmkv.getString(key) ?? null,
    set: (key, value) => mmkv.set(key, value),
    remove: (key) => mmkv.delete(key),
  };
}
