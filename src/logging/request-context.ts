import { AsyncLocalStorage } from 'node:async_hooks';

/** What every log line of a request says, without anybody passing it along. */
export const requestContext = new AsyncLocalStorage<{ requestId: string }>();
