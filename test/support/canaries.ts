import type { Emulator } from '../../src/emulator/emulator';
import { contentsOf } from './redis-contents';

// Texts that no log and no record in Redis may hold. The helpers of the tests add every number, code and token that they
// see. When an instance closes, its whole log is searched for all of them.

/** Settings of the instances, by their whole text. */
const secrets = new Set<string>();
/** The last ten digits of every phone number. */
const numbers = new Set<string>();
const codes = new Set<string>();
/** The ends of tokens: a log that holds only a part of a token is found, too. */
const ends = new Set<string>();
const upstreams = new Set<Emulator>();
const open = new Set<ServiceLog>();

const END = 12;
/** Shorter ones are years and ports, too. */
const CODE = /^\d{6,8}$/;
/** Of a million codes: with more, a sum of paise would be one of them sooner or later. */
const MOST_CODES = 1_000;
/** With more, ten digits of a random id would be one of them sooner or later. */
const MOST_NUMBERS = 1_000;
const RANDOM_ID = /(?<![\da-f])(?:[\da-f]{32}|[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})(?![\da-f])/gi;
const SECRET_SETTINGS = ['SECRET', 'SUBJECT_SECRET', 'STARTMESSAGING_API_KEY'];
const TOKENS = ['accessToken', 'refreshToken', 'deviceToken', 'access_token', 'refresh_token'];

export function learnNumber(text: unknown): void {
  const digits = typeof text === 'string' ? text.trim() : '';
  if (/^\+?\d{10,15}$/.test(digits)) numbers.add(digits.slice(-10));
}

export function learnCode(text: unknown): void {
  if (typeof text === 'string' && CODE.test(text)) codes.add(text);
}

/** A token that the service issued. Of a JWT also the claims, of all the others the MAC. */
export function learnToken(text: unknown): void {
  if (typeof text !== 'string') return;
  for (const part of text.split('.').slice(1)) if (part.length >= 40) ends.add(part.slice(-END));
}

/** The number and the code in the body of a request. */
export function learnRequest(body: unknown): void {
  const { phoneNumber, otpCode } = fieldsOf(body);
  learnNumber(phoneNumber);
  learnCode(otpCode);
}

/** The tokens in a response and in its cookies. */
export function learnAnswer(body: string, headers: Headers): void {
  const fields = fieldsOf(body);
  for (const name of TOKENS) learnToken(fields[name]);
  // The device cookie holds several tokens.
  for (const cookie of headers.getSetCookie()) cookie.split(/[=;]/)[1]?.split('~').forEach(learnToken);
}

/** The secrets among the settings of an instance. */
export function learnSettings(variables: Record<string, string | undefined>): void {
  const read = (name: string): string[] => (variables[name] ?? '').split(',').filter(Boolean);
  const lastParts = (name: string): string[] => read(name).map((entry) => entry.split(':').at(-1) ?? '');
  const password = /^[a-z+]+:\/\/[^:@/]*:([^@]+)@/.exec(variables.REDIS_URL ?? '')?.[1] ?? '';
  const all = [
    ...SECRET_SETTINGS.flatMap(read),
    ...['ADMIN_TOKENS', 'INTROSPECTION_CLIENTS'].flatMap(lastParts),
  ];
  // A shorter one may be a word.
  for (const secret of [...all, password]) if (secret.length >= 8) secrets.add(secret);
  for (const [number, code] of read('TEST_NUMBERS').map((entry) => entry.split(':'))) {
    learnNumber(number);
    learnCode(code);
  }
}

/** Every code and number of this upstream's SMS from now on, also of those that `reset` forgets. */
export function watchUpstream(upstream: Emulator): void {
  upstreams.add(upstream);
  const reset = upstream.reset.bind(upstream);
  upstream.reset = () => {
    learnMessages(upstream);
    reset();
  };
}

function learnMessages({ messages }: Emulator): void {
  for (const { phoneNumber, code } of messages) {
    learnNumber(phoneNumber);
    learnCode(code);
  }
}

/** Names what a text holds of all this; an empty list when it holds nothing. */
export function leaksIn(text: string): string[] {
  const leaks = new Set<string>();
  for (const secret of secrets) if (text.includes(secret)) leaks.add('a secret of the settings');
  const counted = numbers.size <= MOST_NUMBERS ? text : text.replace(RANDOM_ID, '');
  // Numbers are written in groups, too.
  for (const [run] of counted.replace(/(?<=\d)[ -](?=\d)/g, '').matchAll(/\d{10,}/g))
    for (const part of windows(run, 10)) if (numbers.has(part)) leaks.add('a phone number');
  // By itself, and not a part of a longer figure or of an id.
  if (codes.size <= MOST_CODES)
    for (const [run] of text.matchAll(/(?<![\w-])\d{6,8}(?![\w-])/g)) if (codes.has(run)) leaks.add('a code');
  for (const [run] of text.matchAll(/[\w-]{12,}/g))
    for (const part of windows(run, END)) if (ends.has(part)) leaks.add('a token');
  return [...leaks];
}

/** Everything that one instance wrote to its log. */
export class ServiceLog {
  private written = '';

  constructor() {
    open.add(this);
  }

  write(text: string): void {
    this.written += text;
  }

  /** Throws when a line is no JSON, or holds what no line may hold. */
  check(): void {
    open.delete(this);
    for (const upstream of upstreams) learnMessages(upstream);
    const lines = this.written.split('\n');
    this.written = '';
    const faults = lines
      .filter((line) => line !== '')
      .flatMap((line) =>
        [...(tryJson(line) === undefined ? ['no JSON'] : []), ...leaksIn(unescaped(line))].map(
          (fault) => `${fault}: ${line.slice(0, 1_000)}`,
        ),
      );
    if (faults.length > 0)
      throw new Error(`The log holds what it must not:\n${faults.slice(0, 10).join('\n')}`);
  }
}

/** Throws when a key of the service never expires, or holds such a text. Does nothing when Redis is away. */
export async function checkRedis(url: string): Promise<void> {
  for (const upstream of upstreams) learnMessages(upstream);
  const entries = await contentsOf(url).catch(() => []);
  const faults = entries
    .filter(({ key }) => key.startsWith('otp-login:'))
    .flatMap(({ key, value, ttl }) =>
      [...(ttl === -1 ? ['never expires'] : []), ...leaksIn(`${key} ${value}`)].map(
        (fault) => `${fault}: ${key}`,
      ),
    );
  if (faults.length > 0) throw new Error(`Redis holds what it must not:\n${faults.slice(0, 10).join('\n')}`);
}

// For the instances that the test does not close.
afterAll(() => {
  for (const log of [...open]) log.check();
});

function* windows(text: string, length: number): Generator<string> {
  for (let at = 0; at + length <= text.length; at++) yield text.slice(at, at + length);
}

/** The line with its encodings decoded, as a person would read it. */
function unescaped(line: string): string {
  const plain = line.replace(/%(?:25)*3(\d)/gi, '$1').replace(/\\+u003(\d)/gi, '$1');
  const decoded = [...line.matchAll(/[\w+/-]{16,}={0,2}/g)].map(([word]) =>
    Buffer.from(word, 'base64').toString('latin1'),
  );
  return [line, plain, ...decoded].join('\n');
}

function fieldsOf(body: unknown): Record<string, unknown> {
  const read = typeof body === 'string' ? tryJson(body) : body;
  return typeof read === 'object' && read !== null ? (read as Record<string, unknown>) : {};
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
