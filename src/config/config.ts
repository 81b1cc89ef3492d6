import { inspect } from 'node:util';
import type { AdminToken } from './admin-token';
import { type IntrospectionClient, readAccess } from './read-access';
import { type GuardMode, type Limit, readLimits } from './read-limits';
import { readAlerts } from './read-alerts';
import { readLogin } from './read-login';
import { type ProviderName, readProviders } from './read-providers';
import { readSendWithSes, type SendWithSesSettings } from './read-sendwithses';
import { type LogLevel, readService } from './read-service';
import { readKeys } from './read-keys';
import { readStartMessaging, type StartMessagingContract } from './read-startmessaging';
import { type Environment, type NodeEnv, Settings } from './settings';
import type { TestNumber } from './test-number';

export { ConfigError, SETTING_NAMES, type Environment } from './settings';
export { tokenDigest } from './admin-token';
export type {
  AdminToken,
  GuardMode,
  IntrospectionClient,
  Limit,
  LogLevel,
  NodeEnv,
  ProviderName,
  SendWithSesSettings,
  StartMessagingContract,
  TestNumber,
};

type ConfigValues = Omit<Config, 'toJSON' | 'allowsOrigin' | 'testCode' | typeof inspect.custom>;

const LOCALHOST = /^http:\/\/localhost(:\d+)?$/;

/** Every setting of the service, valid and typed; a time or a sum says its unit in its name. Inject it by class. */
export class Config {
  readonly nodeEnv!: NodeEnv;
  /** True when `NODE_ENV` is `production`: ask this, and never compare the name. */
  readonly production!: boolean;
  readonly host!: string;
  /** 0 lets the system choose a free port. */
  readonly port!: number;
  /** Exactly as configured: `iss` is compared as text (RFC 8414, section 3.3), and may end in a slash. */
  readonly issuer!: string;
  /** `aud` and `client_id` of access tokens. */
  readonly audience!: string;
  /** Undefined means the embedded store, which production refuses. */
  readonly redisUrl!: string | undefined;
  /** Lets `phone_number` into access tokens. */
  readonly tokenPhoneNumber!: boolean;
  readonly swagger!: boolean;
  readonly logLevel!: LogLevel;
  /** How long serving goes on after SIGTERM, so that a load balancer can look away. */
  readonly shutdownDelaySeconds!: number;

  /** Who sends, the preferred one first. */
  readonly providers!: readonly ProviderName[];
  /** Undefined only where it is none of the providers. */
  readonly startMessagingApiKey!: string | undefined;
  /** Without a slash at its end. */
  readonly startMessagingBaseUrl!: string;
  /** Who makes and checks the code: `caller` is this service, `provider` is StartMessaging. */
  readonly startMessagingContract!: StartMessagingContract;
  readonly startMessagingTemplateId!: string | undefined;
  readonly startMessagingAppName!: string;
  /** Undefined without its settings. */
  readonly sendWithSes!: SendWithSesSettings | undefined;
  /** One call, its connection included. */
  readonly upstreamTimeoutMs!: number;
  readonly upstreamConnectTimeoutMs!: number;
  /** The first pause between two calls, before jitter. */
  readonly upstreamRetryDelayMs!: number;
  /** Calls in all, the first one included. */
  readonly upstreamMaxAttempts!: number;
  /** All calls and pauses together. */
  readonly upstreamDeadlineMs!: number;

  /** At least one; the first signs, all are accepted. Use them through a `Keyring` only. */
  readonly secrets!: readonly string[];
  /** Who everyone is hangs on it. Use it through `deriveKey` only. */
  readonly subjectSecret!: string;
  /** Undefined means a signing key that is generated in memory, which production refuses. */
  readonly jwtKeysDir!: string | undefined;

  readonly otpTtlSeconds!: number;
  readonly otpLength!: number;
  readonly otpMaxAttempts!: number;
  readonly accessTokenTtlSeconds!: number;
  readonly sessionIdleTtlSeconds!: number;
  readonly sessionMaxTtlSeconds!: number;
  readonly sessionsPerUser!: number;
  /** How long the parent of a refresh token still gets that same successor. */
  readonly refreshGraceSeconds!: number;

  readonly limitPhone!: readonly Limit[];
  readonly limitIp!: readonly Limit[];
  readonly limitVerifyIp!: readonly Limit[];
  readonly limitGlobal!: readonly Limit[];
  readonly limitFailedCodes!: readonly Limit[];
  readonly budgetPaisePerHour!: number | undefined;
  readonly budgetPaisePerDay!: number | undefined;
  readonly smsPricePaise!: number;
  /** The share of each budget that is kept for numbers that logged in before. */
  readonly budgetReservePercent!: number;
  /** What is done when few codes come back. */
  readonly guardConversion!: GuardMode;
  /** What is done when many numbers see wrong codes. */
  readonly guardWrongCodes!: GuardMode;

  /** CIDRs; a bare address was given its full prefix length. */
  readonly trustedProxies!: readonly string[];
  /** As a browser writes them into `Origin`. */
  readonly corsOrigins!: readonly string[];
  readonly introspectionClients!: readonly IntrospectionClient[];
  /** Empty: there is no /admin. */
  readonly adminTokens!: readonly AdminToken[];
  /** Ask `testCode`: they expire. */
  readonly testNumbers!: readonly TestNumber[];

  /** How many events the stream of the audit keeps; 0: there is none. */
  readonly auditStreamEvents!: number;
  /** Undefined: alerts are told in the log only. It may hold a token of the receiver's. */
  readonly alertWebhookUrl!: string | undefined;
  /** Each signs every webhook, so that the receiver may change over in its own time. */
  readonly alertWebhookSecrets!: readonly Buffer[];

  /** What an operator wants to read once at start: names and reasons, never a value. */
  readonly warnings!: readonly string[];

  constructor(values: ConfigValues) {
    Object.assign(this, values);
    Object.freeze(this);
  }

  /**
   * Whether pages of this origin may call with credentials: those of CORS_ORIGINS, this service's own, and outside
   * production any on localhost. Compared as whole text: a prefix would let `https://app.example.evil.example` in.
   */
  allowsOrigin(origin: string): boolean {
    if (this.corsOrigins.includes(origin) || origin === new URL(this.issuer).origin) return true;
    return !this.production && LOCALHOST.test(origin);
  }

  /** The code of a test number; undefined for every other, and for one that has expired. */
  testCode(phoneNumber: string): string | undefined {
    const found = this.testNumbers.find((test) => test.phoneNumber === phoneNumber);
    const alive = found?.expiresAt === undefined || found.expiresAt.getTime() > Date.now();
    return alive ? found?.code : undefined;
  }

  /** Half of these values are secrets, and a logger serialises whatever it is handed. */
  toJSON(): string {
    return '[Config]';
  }

  [inspect.custom](): string {
    return '[Config]';
  }
}

/**
 * Reads and validates every setting. Impure in two ways only: it reads the files that `NAME_FILE`
 * settings and `JWT_KEYS_DIR` name, and makes random secrets where development left them out.
 * @throws ConfigError with all faults at once.
 */
export function readConfig(environment: Environment): Config {
  const settings = new Settings(environment);
  const service = readService(settings);
  const upstream = readProviders(settings);
  const listed = upstream.providers.includes('startmessaging');
  const startMessaging = readStartMessaging(settings, listed);
  const values = {
    ...service,
    ...upstream,
    ...startMessaging,
    sendWithSes: readSendWithSes(settings, upstream.providers.includes('sendwithses')),
    ...readKeys(settings),
    ...readLogin(settings, listed ? startMessaging.startMessagingContract : undefined),
    ...readLimits(settings),
    ...readAccess(settings),
    ...readAlerts(settings),
  };
  settings.throwFaults();
  return new Config({ ...values, production: settings.production, warnings: settings.warnings });
}
