import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';

/** The `Idempotency-Key` header: 1 to 255 printable ASCII characters, or undefined. Throws `validation_failed`. */
export const IdempotencyKey = createParamDecorator(
  (_: unknown, context: ExecutionContext): string | undefined => {
    const key = context.switchToHttp().getRequest<FastifyRequest>().headers['idempotency-key'];
    if (key === undefined) return undefined;
    if (typeof key === 'string' && /^[\x20-\x7e]{1,255}$/.test(key)) return key;
    const message = 'Idempotency-Key must be 1 to 255 printable ASCII characters';
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
