import { type ArgumentMetadata, ValidationPipe, type ValidationError } from '@nestjs/common';
import type { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { extraMobileSeries } from '../phone-number/is-phone-number';

/** Wrong types are refused, never coerced; unknown fields are dropped; every field that does not hold is named. */
export function validation({ extraMobileSeries: series }: Config): ValidationPipe {
  const pipe = class extends ValidationPipe {
    override transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
      return extraMobileSeries.run(series, () => super.transform(value, metadata));
    }
  };
  return new pipe({
    transform: true,
    whitelist: true,
    // The value never stands in an answer: it may be somebody's number or code.
    validationError: { target: false, value: false },
    exceptionFactory: (errors: ValidationError[]) =>
      new ApiError('validation_failed', {
        errors: errors.map(({ property, constraints }) => ({
          field: property,
          // Of what is not even a string it is misleading to say that it is too long.
          message:
            constraints?.isString ?? Object.values(constraints ?? {})[0] ?? `${property} does not hold`,
        })),
      }),
  });
}
