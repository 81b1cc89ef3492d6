import { AsyncLocalStorage } from 'node:async_hooks';
import { ValidateBy, type ValidationOptions } from 'class-validator';
import { isPhoneNumber, isTestNumber, phoneNumberFault } from './phone-number';

/** The EXTRA_MOBILE_SERIES of the application that validates the request: decorators get no configuration. */
export const extraMobileSeries = new AsyncLocalStorage<readonly string[]>();

/** Holds for what {@link isPhoneNumber} calls a phone number, and for the form of test numbers; there is no other rule. */
export function IsPhoneNumber(options?: ValidationOptions): PropertyDecorator {
  return ValidateBy(
    {
      name: 'isPhoneNumber',
      validator: {
        validate: (value) => isPhoneNumber(value, extraMobileSeries.getStore()) || isTestNumber(value),
        defaultMessage: (validated) => `$property ${phoneNumberFault(validated?.value)}`,
      },
    },
    options,
  );
}
