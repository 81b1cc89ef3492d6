/** All that the body of an answer may have. */
export const LARGEST_ANSWER = 65_536;
/** All that the head of an answer may have. */
export const LARGEST_HEAD = 16_384;

/** A request over a connection of either version of HTTP. */
export interface Exchange {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** UTF-8. */
  readonly body: string | undefined;
  /** An answer of another request in the place of its own would do no harm: its connection may be used again. */
  readonly keep: boolean;
}

/** An answer. `body` is undefined if it did not come whole or is too large. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Buffer | undefined;
}

/** Takes a function that ends the call at once; it replaces the one before. */
export type OnCancel = (cancel: () => void) => void;

/** The call failed, and certainly no byte of its request was processed. */
export class NeverSent extends Error {
  override readonly name = 'NeverSent';

  constructor(options?: ErrorOptions) {
    super('The request was never sent', options);
  }
}
