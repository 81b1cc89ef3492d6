import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';

// A stranger that guesses the key of a login would get the owner's request id, and could use its attempts up.
const FORM = /^[\x20-\x7e]{16,255}$/;

/** The `Idempotency-Key` header: 16 to 255 printable ASCII characters, or undefined. Throws `validation_failed`. */
export const IdempotencyKey = createParamDecorator(
  (_: unknown, context: ExecutionContext): string | undefined => {
    const key = context.switchToHttp().getRequest<FastifyRequest>().headers['idempotency-key'];
    if (key === undefined) return undefined;
    if (typeof key === 'string' && FORM.test(key)) return key;
    const message = 'Idempotency-Key must be 16 to 255 printable ASCII characters';
    throw new ApiError('validation_failed', { errors: [{ field: 'Idempotency-Key', message }] });
  },
);

// Without an example: Swagger UI would send it, and a developer's second send would be a retry of the first.
const HEADER = {
  name: 'Idempotency-Key',
  required: false,
  schema: { type: 'string' as const, minLength: 16, maxLength: 255 },
};

/** The header of send-otp and verify-otp in the OpenAPI document. */
export const IDEMPOTENCY_KEY = {
  ...HEADER,
  description:
    'A random value, such as a UUID, made anew for each send and each verification. A retry under the same key gets the ' +
    'first answer, or resumes what failed. While the first request is in flight, a retry waits for up to 2 s.',
};

/**
 * The header of a refresh in the OpenAPI document. A thief of a refresh token could pass for its owner by guessing the key.
 */
export const REFRESH_IDEMPOTENCY_KEY = {
  ...HEADER,
  description:
    'A random value, such as a UUID, made anew for each refresh and kept until its response has arrived. A repeat of the ' +
    'refresh under the same key gets the same successor as long as the session lives and the successor was not used. ' +
    'Without a key, or under another one, a repeat is answered for `REFRESH_GRACE_SECONDS` only.',
};
