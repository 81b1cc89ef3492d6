import type { StartMessagingContract } from './read-startmessaging';
import { trueOrFalse, wholeNumber } from './rules';
import type { Settings } from './settings';
import { readTestNumbers } from './test-number';

const DAY = 86_400;

/** The code, its attempts, and how long what it opens lives. `contract`: the one that codes are sent under, if any. */
export function readLogin(settings: Settings, contract: StartMessagingContract | undefined) {
  const otpTtlSeconds = settings.withDefault('OTP_TTL_SECONDS', wholeNumber(1, 600), 300);
  const otpLength = settings.withDefault('OTP_LENGTH', wholeNumber(4, 8), 6);
  if (contract === 'caller') {
    // The SMS tells the expiry in minutes, and a code that dies earlier than it says looks broken.
    settings.require(
      otpTtlSeconds % 60 === 0,
      'OTP_TTL_SECONDS',
      'must be whole minutes (a multiple of 60) when STARTMESSAGING_CONTRACT is caller',
      'STARTMESSAGING_CONTRACT',
    );
    settings.require(
      otpLength <= 6,
      'OTP_LENGTH',
      'must be 6 or less when STARTMESSAGING_CONTRACT is caller: upstream takes no longer code',
      'STARTMESSAGING_CONTRACT',
    );
  }
  settings.require(!settings.production || otpLength >= 6, 'OTP_LENGTH', 'must be 6 or more in production');

  // Where one of two related settings is shortened, the default of the other follows.
  const accessTokenTtlSeconds = settings.withDefault('ACCESS_TOKEN_TTL_SECONDS', wholeNumber(1, DAY), 600);
  const refreshGraceSeconds = settings.withDefault(
    'REFRESH_GRACE_SECONDS',
    wholeNumber(0, 120),
    Math.min(60, accessTokenTtlSeconds - 1),
  );
  settings.require(
    refreshGraceSeconds < accessTokenTtlSeconds,
    'REFRESH_GRACE_SECONDS',
    'must be below ACCESS_TOKEN_TTL_SECONDS',
    'ACCESS_TOKEN_TTL_SECONDS',
  );
  const lifetime = wholeNumber(1, 366 * DAY);
  const sessionMaxTtlSeconds = settings.withDefault('SESSION_MAX_TTL_SECONDS', lifetime, 30 * DAY);
  const sessionIdleTtlSeconds = settings.withDefault(
    'SESSION_IDLE_TTL_SECONDS',
    lifetime,
    Math.min(7 * DAY, sessionMaxTtlSeconds),
  );
  settings.require(
    sessionIdleTtlSeconds <= sessionMaxTtlSeconds,
    'SESSION_IDLE_TTL_SECONDS',
    'must not exceed SESSION_MAX_TTL_SECONDS',
    'SESSION_MAX_TTL_SECONDS',
  );

  const magicNumbers = settings.withDefault('MAGIC_NUMBERS', trueOrFalse, false);
  // Their code is published: every stranger could log in.
  settings.require(!settings.production || !magicNumbers, 'MAGIC_NUMBERS', 'must not be true in production');

  return {
    magicNumbers,
    otpTtlSeconds,
    otpLength,
    otpMaxAttempts: settings.withDefault('OTP_MAX_ATTEMPTS', wholeNumber(1, 5), 3),
    accessTokenTtlSeconds,
    refreshGraceSeconds,
    sessionIdleTtlSeconds,
    sessionMaxTtlSeconds,
    sessionsPerUser: settings.withDefault('SESSIONS_PER_USER', wholeNumber(1, 100), 10),
    testNumbers: readTestNumbers(settings),
    // With it, every service that gets the token learns the phone number.
    tokenPhoneNumber: settings.withDefault('TOKEN_PHONE_NUMBER', trueOrFalse, false),
  };
}
