import { AsyncLocalStorage } from 'node:async_hooks';

/** The fields that every log line of a request gets. */
export interface RequestContext {
  readonly requestId: string;
  readonly traceId?: string;
  /** The pseudonym of the number that the request is about, once that is known. */
  phone?: string;
  /** Texts that no line of this request may hold: the number, codes, tokens and keys that it brought, and the code it is about. */
  readonly secrets?: Set<string>;
  /** Hides them; the logger makes it when a line is written. */
  hideSecrets?: ((text: string) => string) | undefined;
}

export const requestContext = new AsyncLocalStorage<RequestContext>();

/** From here on, the lines of this request name the number by its pseudonym. */
export function aboutNumber(pseudonym: string): void {
  const context = requestContext.getStore();
  // A caller may write a phone number in place of the pseudonym in a request id. 22 random characters almost never contain ten digits in a row.
  if (context) context.phone = /\d{10}/.test(pseudonym) ? '***' : pseudonym;
}

// A caller chooses some of these: no word that our own lines are made of, or a caller could blank an alert.
const CONCEALABLE = /^(?:\+?\d{4,13}|(?=.*[A-Z\d])[!-~]{16,2048})$/;
/** More than an honest request brings. Further secrets are still redacted by their form. */
const MOST_SECRETS = 12;

/** From here on, no line of this request holds this text. */
export function conceal(secret: string, context = requestContext.getStore()): void {
  if (context?.secrets === undefined || !CONCEALABLE.test(secret)) return;
  if (context.secrets.size >= MOST_SECRETS) return;
  context.secrets.add(secret);
  context.hideSecrets = undefined;
}
