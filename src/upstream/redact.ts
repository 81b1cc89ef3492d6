const LONGEST_TEXT = 300;

/**
 * Makes a text of upstream's fit for the log: one line of at most 300 characters, without control characters,
 * the given secrets, API keys, and runs of four digits or more, however they are grouped (codes, phone numbers).
 */
export function redact(text: string, secrets: readonly string[]): string {
  // Invisible characters go first: left in, they would split a secret into pieces that no pattern knows.
  let line = text.replace(/\s+/g, ' ').replace(/\p{C}/gu, '');
  for (const secret of secrets) if (secret !== '') line = line.replaceAll(secret, '***');
  return line
    .replace(/\bsm_\w+/gi, '***')
    .replace(/\p{Nd}(?:[ ().-]{0,2}\p{Nd}){3,}/gu, '***')
    .slice(0, LONGEST_TEXT)
    .replace(/\p{Cs}$/u, '')
    .trim();
}
