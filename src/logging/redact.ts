/**
 * Forms of secrets that no log may contain: phone numbers, StartMessaging keys, tokens, codes, passwords. Every string of a
 * line passes through these patterns. Each pattern is linear, so no text of a caller can make it hang.
 */
const SECRETS: [RegExp, string][] = [
  // A caller may spell digits as %39, twice encoded as %2539, or \u0039.
  [/(?:%(?:25)*|\\{1,8}u00)3(\d)/gi, '$1'],
  [/-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*/g, '-----PRIVATE KEY***'],
  [/sm_(live|test)_[A-Za-z0-9]+/g, 'sm_$1_***'],
  [/(?<![A-Za-z0-9])eyJ[\w-]*\.[\w-]*\.?[\w-]*/g, 'eyJ***'],
  // Refresh and device tokens of this service: the last part is the MAC.
  [/\.([\w-]{6})\.[\w-]{20,}/g, '.$1.***'],
  [/(?:\+|%2B)?91[ -]?[6-9](?:[ -]?\d){9}(?!\d)/gi, '+91******'],
  [/(?:\+|%2B)91[ -]?\d(?:[ -]?\d){9}(?!\d)/gi, '+91******'],
  [/(?:\+|%2B)[1-9]\d{7,14}(?!\d)/gi, '+******'],
  // Leading zeros may come from a trunk call or a padded field.
  [/(?<!\d)0*[6-9]\d{4}[ -]?\d{5}(?!\d)/g, '******'],
  // A code is six digits like many a figure: it is told by what is written before it. "otpCode":"123456", code is 123456.
  [/((?:otp|code|passcode|pin)(?:["'\\\s:=]|is|%22|%3A){1,12})\d{4,8}(?!\d)/gi, '$1***'],
  // Redis repeats the arguments of a command that it does not know or allow.
  [/, with args beginning with: .*/g, ''],
  [/(rediss?(?:\+\w+)?:\/\/)[^@/\s]*@/g, '$1***@'],
];

/** Something that every secret has. Most texts of a line have none of it, and cost one look. */
const SUSPICIOUS = /(?:\d[ -]?){4}|[%\\]|sm_|eyJ|:\/\/|PRIVATE KEY|, with args|\.[\w-]{6}\./i;

export function redact(text: string): string {
  if (!SUSPICIOUS.test(text)) return text;
  return SECRETS.reduce((clean, [pattern, replacement]) => clean.replace(pattern, replacement), text);
}

/** For texts that people write: also finds numbers with spaces, dashes, brackets, a leading 0, in any script. */
export function redactWritten(text: string): string {
  return redact(
    text
      .replace(/(?<!\d)(?:\+?91|0)?[\s().-]{0,9}[6-9](?:[\s().-]{0,9}\d){9}(?!\d)/g, ' ******')
      .replace(/(?:[^\P{Nd}\d][\s().-]{0,9}){9,}[^\P{Nd}\d]/gu, ' ******')
      .trim(),
  );
}

/** Names of fields that hold a secret, without dashes and case. */
const SECRET_NAME =
  /(?:token|secret|password|passwd|apikey|privatekey|authorization|cookie)$|^(?:otp|otpcode|passcode|pin|phonenumber|mobile|msisdn|altcha)$/;

export function isSecretName(name: string): boolean {
  return SECRET_NAME.test(
    name
      .slice(0, 100)
      .replace(/[-_. ]/g, '')
      .toLowerCase(),
  );
}

/** A code of a person, and no status nor name of an error, where a field is called a code. */
export function isCode(name: string, value: unknown): boolean {
  const text = typeof value === 'number' ? String(value) : value;
  return typeof text === 'string' && /code$/i.test(name) && /^\d{4,8}$/.test(text);
}

/**
 * Replaces these texts, however little they look like secrets: `SECRET`, the password of Redis, the code of a request. By plain
 * search: a caller chooses some of the texts, and a pattern made of them would let the caller choose how much work a line is.
 */
export function replacing(secrets: Iterable<string>): (text: string) => string {
  const spellings = new Set([...secrets].flatMap((secret) => [secret, encodeURIComponent(secret)]));
  // The longest first: a secret may begin with another one.
  const known = [...spellings].filter(Boolean).sort((a, b) => b.length - a.length);
  return (text) => known.reduce(hide, text);
}

/** Digits count only where no other digit is next to them: a code is no part of a longer figure. */
function hide(text: string, secret: string): string {
  if (!text.includes(secret)) return text;
  if (!/^\d+$/.test(secret)) return text.replaceAll(secret, '***');
  let clean = '';
  let from = 0;
  for (let at = text.indexOf(secret); at >= 0; at = text.indexOf(secret, at + 1)) {
    const end = at + secret.length;
    if (at < from || isDigit(text[at - 1]) || isDigit(text[end])) continue;
    clean += `${text.slice(from, at)}***`;
    from = end;
  }
  return clean + text.slice(from);
}

const isDigit = (character: string | undefined): boolean => character !== undefined && /\d/.test(character);
