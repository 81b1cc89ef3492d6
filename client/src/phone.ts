/** Text with the digits of a Hindi keyboard in ASCII. */
export function asciiDigits(text: string): string {
  return text.replace(/[०-९]/g, (digit) => String(digit.charCodeAt(0) - 0x966));
}

/**
 * The number in E.164 form, from any usual spelling of an Indian mobile number; undefined if it is none. The service makes
 * the final check: it knows which series exist. Ten digits that start with 0 are a test number, which only the service
 * can know.
 *
 * @example
 * toE164('098765 43210'); // '+919876543210'
 */
export function toE164(input: string): string | undefined {
  // Spaces, dashes and brackets, and the invisible marks of direction of numbers that were copied from an address book.
  const match = /^((\+|0{0,2})91)?0?([06-9]\d{9})$/.exec(input.replace(/[^\w+]/g, ''));
  return match ? '+91' + match[3] : undefined;
}
