import type * as app from '../../src/app';
import type * as emulator from '../../src/emulator/emulator';

declare global {
  /** Of test/support/environment.js: a module of the service as Node.js loaded it, once for all test files of a worker. */
  function loadModule(path: string): unknown;
}

let loadedHere = false;

/**
 * For a test file that replaces `Date.now` or `node:fs` under the service: from now on the service is loaded among the file's
 * own modules, which takes two seconds.
 */
export function loadServiceHere(): void {
  loadedHere = true;
}

/** Settings that the way of loading demands: beside the sources lie no compiled scripts of the pages. */
export const settingsOfLoading = (): Record<string, string> => (loadedHere ? { LOGIN_PAGE: 'false' } : {});

/**
 * A module of `src/` as the running service has it, so that `app.get(Class)` finds its class:
 * `serviceModule<typeof import('../../src/logging/logger')>('logging/logger')`.
 */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the caller knows what the path names
export function serviceModule<Module>(path: string): Module {
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  return (loadedHere ? require(`../../src/${path}`) : globalThis.loadModule(path)) as Module;
}

/** What starts the service and the StartMessaging emulator. */
export const service = (): Pick<typeof app & typeof emulator, 'createApp' | 'startEmulator'> => ({
  ...serviceModule<typeof app>('app'),
  ...serviceModule<typeof emulator>('emulator/emulator'),
});
