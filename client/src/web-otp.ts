/**
 * The code from the SMS by WebOTP, which Chrome on Android has; undefined elsewhere, when the user declines, and after
 * `signal`. Start it before you send, and abort it when the user has typed the code: a page can have one such call only. It
 * needs an SMS whose last line is `@login.example.com #123456` with the host of the page.
 *
 * @example
 * const reading = new AbortController();
 * void readOtpFromSms(reading.signal).then((code) => code && verify(code));
 */
export async function readOtpFromSms(signal: AbortSignal): Promise<string | undefined> {
  try {
    const request = { otp: { transport: ['sms'] }, signal } as CredentialRequestOptions;
    const credential = (await navigator.credentials.get(request)) as { code?: string } | null;
    return credential?.code;
  } catch {
    return undefined;
  }
}
