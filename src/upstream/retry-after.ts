const LONGEST_SECONDS = 86_400;

// RFC 9110, section 5.6.7: IMF-fixdate, RFC 850 and asctime dates. The shape is checked because Date.parse
// takes almost anything: "-5" is the first of May 2001 to it.
const HTTP_DATE =
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? [\w -]{5,12} \d{2}:\d{2}:\d{2} (?:GMT|\d{4})$/;

/**
 * Reads a Retry-After header (RFC 9110, section 10.2.3), seconds or an HTTP date.
 *
 * @returns whole seconds from 1 to 86400; `undefined` when there is no header or it makes no sense
 */
export function readRetryAfter(header: unknown, nowMs = Date.now()): number | undefined {
  if (typeof header !== 'string') return undefined;
  const value = header.trim();
  if (/^\d+$/.test(value)) return bounded(Number(value));
  if (!HTTP_DATE.test(value)) return undefined;
  // asctime names no zone, and means GMT all the same.
  const at = Date.parse(value.endsWith('GMT') ? value : `${value} GMT`);
  return Number.isNaN(at) ? undefined : bounded(Math.ceil((at - nowMs) / 1000));
}

function bounded(seconds: number): number {
  return Math.min(Math.max(seconds, 1), LONGEST_SECONDS);
}
