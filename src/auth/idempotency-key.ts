import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';

/**
 * The `Idempotency-Key` header: printable ASCII characters, `shortest` (1 unless given) to 255 of them, or undefined.
 * Throws `validation_failed`.
 */
export const IdempotencyKey = createParamDecorator(
  (shortest: number | undefined, context: ExecutionContext): string | undefined => {
    const key = context.switchToHttp().getRequest<FastifyRequest>().headers['idempotency-key'];
    if (key === undefined) return undefined;
    const least = shortest ?? 1;
    if (typeof key === 'string' && key.length >= least && /^[\x20-\x7e]{1,255}$/.test(key)) return key;
    const message = `Idempotency-Key must be ${least} to 255 printable ASCII characters`;
    throw new ApiError('validation_failed', { errors: [{ field: 'Idempotency-Key', message }] });
  },
);

/** The header in the OpenAPI document. */
export const IDEMPOTENCY_KEY = {
  name: 'Idempotency-Key',
  required: false,
  description: 'A retry under the same key gets the first answer, or resumes what failed.',
  schema: { type: 'string' as const, minLength: 1, maxLength: 255 },
};

/** A key that can be guessed would let a thief of a refresh token pass for its owner, so a refresh wants 16 characters. */
export const REFRESH_KEY_LENGTH = 16;
export const REFRESH_IDEMPOTENCY_KEY = {
  ...IDEMPOTENCY_KEY,
  description:
    'A random value, such as a UUID, made anew for each refresh and kept until its response has arrived. A repeat of the ' +
    'refresh under the same key gets the same successor as long as the session lives and the successor was not used. ' +
    'Without a key, or under another one, a repeat is answered for `REFRESH_GRACE_SECONDS` only.',
  schema: { ...IDEMPOTENCY_KEY.schema, minLength: REFRESH_KEY_LENGTH },
};
