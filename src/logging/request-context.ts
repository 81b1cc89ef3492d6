import { AsyncLocalStorage } from 'node:async_hooks';
import { redact } from './redact';

/** What every log line of a request says, without anybody passing it along. */
export interface RequestContext {
  readonly requestId: string;
  readonly traceId?: string;
  /** The pseudonym of the number that the request is about, once that is known. */
  phone?: string;
  /** Texts that no line of this request may hold: what it brought as a code or a token, and the code it is about. */
  readonly secrets?: Set<string>;
  /** Hides them; the logger makes it when a line is written. */
  hideSecrets?: ((text: string) => string) | undefined;
}

export const requestContext = new AsyncLocalStorage<RequestContext>();

/** From here on, the lines of this request name the number, by its pseudonym. An id that a caller made up may hold more. */
export function aboutNumber(pseudonym: string): void {
  const context = requestContext.getStore();
  // Of 22 random characters ten digits in a row are as good as never.
  if (context) context.phone = /\d{10}/.test(pseudonym) ? '***' : redact(pseudonym);
}

// A caller chooses some of these: no word that our own lines are made of, or they could blank an alert.
const CONCEALABLE = /^(?:\d{4,8}|(?=.*[A-Z\d])[!-~]{16,2048})$/;

/** From here on, no line of this request holds this text. */
export function conceal(secret: string, context = requestContext.getStore()): void {
  if (context?.secrets === undefined || !CONCEALABLE.test(secret)) return;
  context.secrets.add(secret);
  context.hideSecrets = undefined;
}
