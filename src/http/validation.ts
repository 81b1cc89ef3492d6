import { type ArgumentMetadata, type Type, ValidationPipe, type ValidationError } from '@nestjs/common';
import { getMetadataStorage } from 'class-validator';
import type { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { extraMobileSeries } from '../phone-number/is-phone-number';

/** Wrong types are refused, never coerced; unknown fields are dropped; every invalid field is named. */
export function validation({ extraMobileSeries: series }: Config): ValidationPipe {
  const pipe = class extends ValidationPipe {
    override transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
      const fields = knownFields(value, metadata);
      if (series.length === 0) return super.transform(fields, metadata);
      return extraMobileSeries.run(series, () => super.transform(fields, metadata));
    }
  };
  return new pipe({
    transform: true,
    // The value serves to tell faults apart. It never stands in a response: it may be a phone number or a code.
    validationError: { target: false, value: true },
    exceptionFactory: (errors: ValidationError[]) =>
      new ApiError('validation_failed', {
        errors: errors.map((error) => ({ field: error.property, message: messageOf(error) })),
      }),
  });
}

/** The names of the fields of each class. */
const names = new WeakMap<Type, Set<string>>();

function namesOf(type: Type): Set<string> {
  const known =
    names.get(type) ??
    new Set(
      getMetadataStorage()
        .getTargetValidationMetadatas(type, '', false, false)
        .map(({ propertyName }) => propertyName),
    );
  names.set(type, known);
  return known;
}

/**
 * The fields that the class of a request has. An attacker fills 16 KB with thousands of fields or levels: copying and validating
 * them would cost many times what an empty request costs. Every field is a text or a number, so of arrays and objects only the
 * type counts. Clients write null for a value that they do not have (`localStorage.getItem`, generated clients): it counts as absent.
 */
function knownFields(value: unknown, { metatype, type }: ArgumentMetadata): unknown {
  if (metatype === undefined || (type !== 'body' && type !== 'query')) return value;
  if (typeof value !== 'object' || value === null) return value;
  const known = namesOf(metatype);
  if (known.size === 0) return value;
  const all = value as Record<string, unknown>;
  const fields: Record<string, unknown> = {};
  for (const name of known) {
    if (!Object.hasOwn(all, name) || all[name] === null) continue;
    fields[name] = typeof all[name] === 'object' ? {} : all[name];
  }
  return fields;
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
