import { type ArgumentMetadata, ValidationPipe, type ValidationError } from '@nestjs/common';
import type { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { extraMobileSeries } from '../phone-number/is-phone-number';

/** Wrong types are refused, never coerced; unknown fields are dropped; every invalid field is named. */
export function validation({ extraMobileSeries: series }: Config): ValidationPipe {
  const pipe = class extends ValidationPipe {
    override transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
      return extraMobileSeries.run(series, () => super.transform(value, metadata));
    }
  };
  return new pipe({
    transform: true,
    whitelist: true,
    // The value serves to tell faults apart. It never stands in a response: it may be a phone number or a code.
    validationError: { target: false, value: true },
    exceptionFactory: (errors: ValidationError[]) =>
      new ApiError('validation_failed', {
        errors: errors.map((error) => ({ field: error.property, message: messageOf(error) })),
      }),
  });
}

/** Controls, format and bidi characters, half surrogates, fillers, and every space except the ASCII one. */
const NOT_SHOWN = /[\p{C}\p{Default_Ignorable_Code_Point}]|(?! )\p{Z}/u;

function messageOf({ property, value, constraints = {} }: ValidationError): string {
  if (value === undefined) return `${property} is missing`;
  const hidden = typeof value === 'string' ? NOT_SHOWN.exec(value)?.[0] : undefined;
  if (hidden !== undefined) {
    // By its number: shown as it is, the message would describe exactly the text that the user sees.
    const number = hidden.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0') ?? '';
    return `${property} contains a character that is not shown (U+${number})`;
  }
  // To say that a value is too long is misleading when it is not even a string.
  return constraints.isString ?? Object.values(constraints)[0] ?? `${property} is invalid`;
}
