import { consume, giveBack, status, storeOutcome, take } from './attempts';
import { admit, countAddress, giveAddressBack, refund } from './limits';
import { activate, begin, release } from './number';
import { endSessions, findSession, listSessions, openSession, refresh } from './user';

/**
 * Every step. A step looks at a document, and says an answer and, if the document has changed, the document from now on and
 * its end. A step over one document is atomic in each store. No step is over two documents.
 */
const STEPS = {
  begin,
  activate,
  release,
  take,
  consume,
  giveBack,
  storeOutcome,
  status,
  countAddress,
  giveAddressBack,
  admit,
  refund,
  openSession,
  refresh,
  findSession,
  listSessions,
  endSessions,
};

export type StepName = keyof typeof STEPS;
export type Command<Name extends StepName> = Parameters<(typeof STEPS)[Name]>[1];
export type Answer<Name extends StepName> = ReturnType<(typeof STEPS)[Name]>['answer'];

/** Where the documents are: both targets have one implementation. */
export interface Store {
  /**
   * Runs a step over the document of this key.
   * @throws Error if the store cannot be reached; the step may have been taken then.
   */
  run<Name extends StepName>(key: string, name: Name, command: Command<Name>): Promise<Answer<Name>>;
}

export interface Outcome<Name extends StepName> {
  answer: Answer<Name>;
  /** The text to store; undefined if nothing changed. */
  body?: string;
  /** When the document ends, in milliseconds since 1970. */
  expires: number;
}

/** Runs a step over the text of a document. Pure: the same text, command and time give the same outcome. */
export function runStep<Name extends StepName>(
  name: Name,
  body: string | undefined,
  command: Command<Name>,
  now: number,
): Outcome<Name> {
  const step = STEPS[name] as unknown as (
    document: unknown,
    command: unknown,
    now: number,
  ) => { answer: Answer<Name>; next?: unknown; expires?: number };
  const document: unknown = body === undefined ? undefined : JSON.parse(body);
  const { answer, next, expires = now } = step(document, command, now);
  return next === undefined ? { answer, expires } : { answer, body: JSON.stringify(next), expires };
}
