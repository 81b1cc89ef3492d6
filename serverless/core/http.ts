import type { Context } from 'hono';
import { ApiError, type ApiErrorDetails } from '../../src/errors/api-error';
import { problemBody } from '../../src/http/problem';
import { isDeviceName } from '../../src/auth/client';
import { isPhoneNumber, isTestNumber, phoneNumberFault } from '../../src/phone-number/phone-number';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
import type { Edition } from './edition';

const LARGEST_BODY = 16 * 1024;
const DEEPEST = 16;
const COOKIE = '__Host-refresh';
const IDEMPOTENCY_KEY = /^[\x20-\x7e]{16,255}$/;

type Fields = Record<string, unknown>;
type FieldError = NonNullable<ApiErrorDetails['errors']>[number];

/** The text of a body, of 16 KB at most. Throws `payload_too_large`. */
export async function readText({ req }: Context): Promise<string> {
  if (Number(req.header('content-length') ?? 0) > LARGEST_BODY) throw new ApiError('payload_too_large');
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of (req.raw.body ?? []) as unknown as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > LARGEST_BODY) throw new ApiError('payload_too_large');
    chunks.push(chunk);
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}

/** The JSON object of a body; an empty body counts as `{}`, and a null as absent. */
export async function readJsonBody(context: Context): Promise<Fields> {
  const type = context.req.header('content-type');
  const encoding = context.req.header('content-encoding') ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') {
    const detail = 'The body must not be encoded: send it without Content-Encoding.';
    throw new ApiError('unsupported_media_type', { detail });
  }
  const text = await readText(context);
  if (type === undefined && text === '') return {};
  if (!/^application\/json\s*(;|$)/i.test(type ?? '')) throw new ApiError('unsupported_media_type');
  if (text === '') return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalid('body', 'the body is not JSON, as JSON.stringify writes it');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('body', 'the body must be a JSON object');
  }
  if (isDeeperThan(DEEPEST, value)) throw invalid('body', 'the body is nested too deep');
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== null));
}

const invalid = (field: string, message: string): ApiError =>
  new ApiError('validation_failed', { errors: [{ field, message }] });

function isDeeperThan(levels: number, value: unknown): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > levels) return true;
    level = level.flatMap((item): unknown[] =>
      typeof item === 'object' && item !== null ? Object.values(item) : [],
    );
  }
  return false;
}

/** Throws `validation_failed` with every invalid field. The words never repeat a value. */
function check(errors: (FieldError | false)[]): void {
  const faults = errors.filter((error) => error !== false);
  if (faults.length > 0) throw new ApiError('validation_failed', { errors: faults });
}

const missingOr = (field: string, value: unknown, message: string): FieldError => ({
  field,
  message: value === undefined ? `${field} is missing` : `${field} ${message}`,
});

export function readSend({ phoneNumber, deviceToken, altcha }: Fields): PhoneNumber {
  const isNumber = isPhoneNumber(phoneNumber) || isTestNumber(phoneNumber);
  check([
    !isNumber && missingOr('phoneNumber', phoneNumber, phoneNumberFault(phoneNumber)),
    optionalText('deviceToken', deviceToken, 512),
    optionalText('altcha', altcha, 4_096),
  ]);
  return phoneNumber as PhoneNumber;
}

/** A field that the service knows and the edition ignores: a value that the service refuses is refused here too. */
function optionalText(field: string, value: unknown, longest: number): FieldError | false {
  if (value === undefined) return false;
  if (typeof value !== 'string') return { field, message: `${field} must be a string` };
  if (value.length <= longest) return false;
  return { field, message: `${field} must be shorter than or equal to ${longest} characters` };
}

export interface VerifyBody {
  requestId: string;
  otpCode: string;
  tokenDelivery: 'body' | 'cookie';
  deviceName?: string | undefined;
}

export function readVerify(body: Fields): VerifyBody {
  const { requestId, otpCode, tokenDelivery, deviceName, deviceToken } = body;
  const isId = typeof requestId === 'string' && requestId.length >= 1 && requestId.length <= 128;
  const isCode = typeof otpCode === 'string' && /^[0-9]{4,8}$/.test(otpCode);
  const codeRule =
    typeof otpCode === 'string'
      ? 'must be as many digits, 0 to 9, as codeLength says'
      : 'must be a string, because a code may start with 0';
  const isDelivery = tokenDelivery === undefined || tokenDelivery === 'body' || tokenDelivery === 'cookie';
  check([
    !isId && missingOr('requestId', requestId, 'must be a string of 1 to 128 characters'),
    !isCode && missingOr('otpCode', otpCode, codeRule),
    optionalText('deviceToken', deviceToken, 512),
    !isDelivery && { field: 'tokenDelivery', message: 'tokenDelivery must be body or cookie' },
    deviceName !== undefined &&
      !isDeviceName(deviceName) && {
        field: 'deviceName',
        message: "deviceName must be 1 to 40 letters, digits, spaces and '-._ of 64 bytes at most",
      },
  ]);
  const read = { requestId: requestId as string, otpCode: otpCode as string };
  const name = deviceName as string | undefined;
  return { ...read, tokenDelivery: tokenDelivery === 'cookie' ? 'cookie' : 'body', deviceName: name };
}

export function readRefreshToken({ refreshToken }: Fields): string | undefined {
  check([
    refreshToken !== undefined &&
      typeof refreshToken !== 'string' && {
        field: 'refreshToken',
        message: 'refreshToken must be a string',
      },
  ]);
  return refreshToken as string | undefined;
}

/** The `Idempotency-Key` header, or undefined. Throws `validation_failed`. */
export function idempotencyKey({ req }: Context): string | undefined {
  const key = req.header('idempotency-key');
  if (key === undefined || IDEMPOTENCY_KEY.test(key)) return key;
  throw invalid('Idempotency-Key', 'Idempotency-Key must be 16 to 255 printable ASCII characters');
}

/** The token of the Authorization header (RFC 6750 section 2.1), not verified yet. */
export function bearerToken({ req }: Context): string | undefined {
  return /^Bearer +([^ ]+) *$/i.exec(req.header('authorization') ?? '')?.[1];
}

/** The refresh token of the cookie, and whether the call comes from a page of an allowed origin. */
export function findCookie({ req }: Context, edition: Edition) {
  const origin = req.header('origin');
  const pairs = (req.header('cookie') ?? '').split(';').map((pair) => pair.trim());
  const token = pairs.find((pair) => pair.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1);
  return { token, allowed: origin !== undefined && edition.allowsOrigin(origin) };
}

/**
 * The token of the cookie, if the call may use it. Throws `origin_not_allowed` or `unsupported_media_type`: a page of another
 * origin can make a browser send the cookie (CSRF), but cannot choose its Origin, and cannot send JSON unasked.
 */
export function readCookie(context: Context, edition: Edition): string | undefined {
  const { token, allowed } = findCookie(context, edition);
  if (token === undefined) return undefined;
  if (!allowed) throw new ApiError('origin_not_allowed');
  if (!/^application\/json\s*(;|$)/i.test(context.req.header('content-type') ?? '')) {
    const detail = 'A call with the cookie needs a JSON body: send {} with Content-Type: application/json';
    throw new ApiError('unsupported_media_type', { detail });
  }
  return token;
}

// `__Host-`: a sibling domain, or a page without TLS, can neither set nor overwrite it (RFC 6265bis section 4.1.3.2).
const ATTRIBUTES = 'Path=/; HttpOnly; Secure; SameSite=Strict';

export function setCookie(context: Context, token: string, maxAgeSeconds: number): void {
  context.header('Set-Cookie', `${COOKIE}=${token}; Max-Age=${maxAgeSeconds}; ${ATTRIBUTES}`);
}

export function clearCookie(context: Context): void {
  context.header('Set-Cookie', `${COOKIE}=; Max-Age=0; ${ATTRIBUTES}`);
}

/** The error as `application/problem+json` (RFC 9457). The headers that the response has already stay. */
export function writeProblem(context: Context, error: ApiError): Response {
  if (error.retryAfterSeconds !== undefined) context.header('Retry-After', String(error.retryAfterSeconds));
  if (error.status === 401) {
    // RFC 6750 section 3: a token that was given and refused is told apart from none.
    const given = context.req.header('authorization') !== undefined;
    context.header('WWW-Authenticate', given ? 'Bearer error="invalid_token"' : 'Bearer');
  }
  context.header('Content-Type', 'application/problem+json; charset=utf-8');
  return context.body(JSON.stringify(problemBody(error)), error.status as 400);
}
