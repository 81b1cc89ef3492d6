import { webAddress, webOrigin } from '../../src/config/addresses';
import { readSecrets } from '../../src/config/read-keys';
import { readLimits } from '../../src/config/read-limits';
import { readStartMessaging } from '../../src/config/read-startmessaging';
import { listOf, matching, wholeNumber } from '../../src/config/rules';
import { ConfigError, Settings, type Environment } from '../../src/config/settings';
import { readTestNumbers } from '../../src/config/test-number';
import { parseKeys, type SigningKeys } from './keys';

const audience = matching(/^[!-~]{1,255}$/, '1 to 255 visible ASCII characters');
/** Rs 500: an edition that was deployed without a budget must not spend the whole wallet. */
const DEFAULT_BUDGET_PAISE = '50000';

const DAY = 86_400;

/** The settings of the edition, with the names and rules of the service. */
export type EditionSettings = Awaited<ReturnType<typeof readSettings>>;

/**
 * Reads every setting. `environment` holds the bindings of the Worker, or the JSON secret of the Lambda function.
 * @throws ConfigError with all faults at once, by name and never with the value.
 */
export async function readSettings(environment: Environment) {
  const settings = new Settings(
    { BUDGET_PAISE_PER_DAY: DEFAULT_BUDGET_PAISE, ...environment, NODE_ENV: 'production' },
    noFiles,
  );
  const faults: string[] = [];
  const issuer = settings.optional('ISSUER', webAddress);
  // Tokens name it, and resource servers fetch keys by it.
  settings.require(issuer !== undefined, 'ISSUER', 'is required');
  const startMessaging = readStartMessaging(settings, true);
  const limits = readLimits(settings);
  const seconds = (name: Parameters<Settings['optional']>[0], most: number, defaultValue: number) =>
    settings.withDefault(name, wholeNumber(1, most), defaultValue);
  const read = {
    ...startMessaging,
    ...limits,
    ...readSecrets(settings),
    issuer: issuer ?? '',
    audience: settings.withDefault('AUDIENCE', audience, 'otp-login'),
    corsOrigins: settings.withDefault('CORS_ORIGINS', listOf(webOrigin), []),
    testNumbers: readTestNumbers(settings),
    providers: ['startmessaging' as const],
    // The code of an SMS names whole minutes.
    otpTtlSeconds: seconds('OTP_TTL_SECONDS', 600, 300),
    otpLength: settings.withDefault('OTP_LENGTH', wholeNumber(4, 8), 6),
    otpMaxAttempts: settings.withDefault('OTP_MAX_ATTEMPTS', wholeNumber(1, 5), 3),
    accessTokenTtlSeconds: seconds('ACCESS_TOKEN_TTL_SECONDS', 3_600, 600),
    sessionIdleTtlSeconds: seconds('SESSION_IDLE_TTL_SECONDS', 365 * DAY, 7 * DAY),
    sessionMaxTtlSeconds: seconds('SESSION_MAX_TTL_SECONDS', 365 * DAY, 30 * DAY),
    sessionsPerUser: settings.withDefault('SESSIONS_PER_USER', wholeNumber(1, 100), 10),
    refreshGraceSeconds: settings.withDefault('REFRESH_GRACE_SECONDS', wholeNumber(0, 120), 60),
    upstreamTimeoutMs: settings.withDefault('UPSTREAM_TIMEOUT_MS', wholeNumber(1, 60_000), 10_000),
    upstreamRetryDelayMs: settings.withDefault('UPSTREAM_RETRY_DELAY_MS', wholeNumber(1, 10_000), 1_000),
    upstreamDeadlineMs: settings.withDefault('UPSTREAM_DEADLINE_MS', wholeNumber(1, 60_000), 20_000),
  };
  let keys: SigningKeys | undefined;
  try {
    keys = await parseKeys(environment.JWT_KEY ?? '');
  } catch (error) {
    // Without the cause: the message of a parser may quote the key.
    faults.push(`JWT_KEY ${error instanceof Error ? error.message : 'is not readable'}`);
  }
  try {
    settings.throwFaults();
  } catch (error) {
    if (error instanceof ConfigError) faults.unshift(...error.faults);
  }
  if (faults.length > 0 || keys === undefined) throw new ConfigError(faults);
  return { ...read, keys, warnings: settings.warnings };
}

/** A binding or an entry of the secret is a value. There is no file that a `NAME_FILE` could name. */
function noFiles(): string {
  throw new Error('There are no files');
}
