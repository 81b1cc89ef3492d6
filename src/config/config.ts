import { inspect } from 'node:util';
import type { AdminToken } from './admin-token';
import { MAGIC_CODE, MAGIC_STATES, type MagicState } from './magic-number';
import type { IntrospectionClient } from './read-access';
import type { AbuseMode, Limit } from './read-limits';
import type { OAuthClient } from './read-oauth-clients';
import type { Accent, Logo } from './read-pages';
import type { ProviderName } from './read-providers';
import type { SendWithSesSettings } from './read-sendwithses';
import type { LogLevel } from './read-service';
import type { StartMessagingContract, WalletUnit } from './read-startmessaging';
import { parseRedisUrl } from './redis-url';
import type { NodeEnv, SettingName } from './settings';
import type { TestNumber } from './test-number';

export { ConfigError, SETTING_NAMES, type Environment } from './settings';
export { tokenDigest } from './admin-token';
export { CODE_LENGTH } from './test-number';
export type {
  AdminToken,
  AbuseMode,
  IntrospectionClient,
  Limit,
  LogLevel,
  NodeEnv,
  OAuthClient,
  ProviderName,
  SendWithSesSettings,
  StartMessagingContract,
  TestNumber,
  WalletUnit,
};

type ConfigValues = Omit<
  Config,
  | 'toJSON'
  | 'allowsOrigin'
  | 'audienceOf'
  | 'isOwnOrigin'
  | 'knownSecrets'
  | 'returningSeconds'
  | 'testCode'
  | 'magicState'
  | 'replaceSecrets'
  | 'onSecrets'
  | typeof inspect.custom
>;

/**
 * The settings that are secret, and where `Config` holds them. One that comes from a file follows it while the service
 * runs (see `SecretFiles`), so ask `Config` for it whenever it is used, and keep no copy. All other settings are as they
 * were at the start.
 */
export const SECRETS = {
  REDIS_URL: 'redisUrl',
  STARTMESSAGING_API_KEY: 'startMessagingApiKey',
  SECRET: 'secrets',
  SUBJECT_SECRET: 'subjectSecret',
  INTROSPECTION_CLIENTS: 'introspectionClients',
  ADMIN_TOKENS: 'adminTokens',
  TEST_NUMBERS: 'testNumbers',
  SENDWITHSES_TEMPLATE_KEY: 'sendWithSes',
  ALERT_WEBHOOK_URL: 'alertWebhookUrl',
  ALERT_WEBHOOK_SECRET: 'alertWebhookSecrets',
} as const satisfies Partial<Record<SettingName, keyof ConfigValues>>;

export type SecretName = keyof typeof SECRETS;
type Secrets = Pick<ConfigValues, (typeof SECRETS)[SecretName]>;

const LOCALHOST = /^http:\/\/(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/;

/** Every setting of the service, valid and typed; a time or a sum says its unit in its name. Inject it by class. */
export class Config {
  readonly nodeEnv!: NodeEnv;
  /** True when `NODE_ENV` is `production`: ask this, and never compare the name. */
  readonly production!: boolean;
  readonly host!: string;
  /** 0 lets the system choose a free port. */
  readonly port!: number;
  /** Undefined: probes and metrics are on `port`. */
  readonly managementPort!: number | undefined;
  /** Exactly as configured: `iss` is compared as text (RFC 8414, section 3.3), and may end in a slash. */
  readonly issuer!: string;
  /** `aud` and `client_id` of access tokens. */
  readonly audience!: string;
  /** Other values of `aud` that a client may ask for by `resource` (RFC 8707). */
  readonly resourceAudiences!: readonly string[];
  /** Undefined means the embedded store, which production refuses. */
  readonly redisUrl!: string | undefined;
  /** Lets `phone_number` into access tokens. */
  readonly tokenPhoneNumber!: boolean;
  readonly swagger!: boolean;
  /** The address of the emulator's phone inbox, for links. Undefined in production. */
  readonly phoneInboxUrl!: string | undefined;
  readonly logLevel!: LogLevel;
  /** How long an idle connection of a client stays open. */
  readonly keepAliveSeconds!: number;
  /** How long serving goes on after SIGTERM, so that a load balancer can look away. */
  readonly shutdownDelaySeconds!: number;

  /** The providers that send, the preferred one first. */
  readonly providers!: readonly ProviderName[];
  /** Undefined only where it is none of the providers. */
  readonly startMessagingApiKey!: string | undefined;
  /** Without a slash at its end. */
  readonly startMessagingBaseUrl!: string;
  /** `caller`: this service makes and checks the code. `provider`: StartMessaging does. */
  readonly startMessagingContract!: StartMessagingContract;
  readonly startMessagingTemplateId!: string | undefined;
  readonly startMessagingAppName!: string;
  /** Undefined: it is inferred from what accepted SMS take from the balance. */
  readonly walletUnit!: WalletUnit | undefined;
  /** Undefined without its settings. */
  readonly sendWithSes!: SendWithSesSettings | undefined;
  /** One call, its connection included. */
  readonly upstreamTimeoutMs!: number;
  readonly upstreamConnectTimeoutMs!: number;
  /** The first pause between two calls, before jitter. */
  readonly upstreamRetryDelayMs!: number;
  /** All calls and pauses together. */
  readonly upstreamDeadlineMs!: number;

  /** At least one; the first signs, all are accepted. Use them through a `Keyring` only. */
  readonly secrets!: readonly string[];
  /** Every user id depends on it. Use it through `deriveKey` only. */
  readonly subjectSecret!: string;
  /** Undefined means a signing key that is generated in memory, which production refuses. */
  readonly jwtKeysDir!: string | undefined;

  readonly otpTtlSeconds!: number;
  /** Of codes that a provider makes. */
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
  /** The alert `wallet_low` is raised below this balance; 0: the wallet is not read. */
  readonly walletAlertPaise!: number;
  /** The highest reaction to few codes that come back. */
  readonly abuseConversion!: AbuseMode;
  /** The highest reaction to many numbers with wrong codes. */
  readonly abuseWrongCodes!: AbuseMode;

  /** Leading digits of national numbers that count as mobile although libphonenumber's metadata does not know them. */
  readonly extraMobileSeries!: readonly string[];

  /** CIDRs; a bare address was given its full prefix length. */
  readonly trustedProxies!: readonly string[];
  /** As a browser writes them into `Origin`. */
  readonly corsOrigins!: readonly string[];
  /** The refresh cookie is `refresh` without `Secure`: only outside production, under an http ISSUER on loopback. */
  readonly cookieInsecure!: boolean;
  /** The login and account pages are served. */
  readonly loginPage!: boolean;
  /** Origins that the login page may lead back to. */
  readonly loginReturnOrigins!: readonly string[];
  readonly loginAppName!: string;
  readonly loginLogo!: Logo | undefined;
  /** Undefined: the colours of the style sheet. */
  readonly loginAccent!: Accent | undefined;
  readonly loginPrivacyUrl!: string | undefined;
  readonly loginTermsUrl!: string | undefined;
  /** Empty: there is no `/oauth/authorize`. */
  readonly oauthClients!: readonly OAuthClient[];
  readonly introspectionClients!: readonly IntrospectionClient[];
  /** Empty: there is no /admin. */
  readonly adminTokens!: readonly AdminToken[];
  /** Ask `magicState`. */
  readonly magicNumbers!: boolean;
  /** Ask `testCode`: they expire. */
  readonly testNumbers!: readonly TestNumber[];

  /** How many events the stream of the audit keeps; 0: there is none. */
  readonly auditStreamEvents!: number;
  /** Undefined: alerts are told in the log only. It may hold a token of the receiver's. */
  readonly alertWebhookUrl!: string | undefined;
  /** Each signs every webhook, so that the receiver may change over in its own time. */
  readonly alertWebhookSecrets!: readonly Buffer[];

  /** Warnings that are logged once at the start: names and reasons, never a value. */
  readonly warnings!: readonly string[];

  #secrets: Secrets;
  readonly #listeners: (() => void)[] = [];

  constructor(values: ConfigValues) {
    Object.assign(this, values);
    this.#secrets = values;
    for (const field of Object.values(SECRETS)) {
      Object.defineProperty(this, field, { get: () => this.#secrets[field], enumerable: true });
    }
    Object.freeze(this);
  }

  /**
   * For how long a login makes a number a returning one, for which the reserve of the budget is kept: 30 days longer than
   * any session lives. Otherwise a user of every day would be a new number on the very day that the session ends.
   */
  get returningSeconds(): number {
    return this.sessionMaxTtlSeconds + 2_592_000;
  }

  /** Takes over these secrets of another `Config` in one step, so that no request sees half of them. */
  replaceSecrets(from: Config, names: readonly SecretName[]): void {
    const taken = names.map((name) => [SECRETS[name], from[SECRETS[name]]]);
    this.#secrets = { ...this.#secrets, ...(Object.fromEntries(taken) as Partial<Secrets>) };
    for (const listener of this.#listeners) listener();
  }

  /** Tells whenever secrets were replaced: for what cannot ask at each use. */
  onSecrets(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /**
   * Whether pages of this origin may call with credentials: those of CORS_ORIGINS, this service's own, and outside
   * production those on localhost, 127.0.0.1 and [::1]. The whole text is compared: with a prefix,
   * `https://app.example.evil.example` would pass.
   */
  allowsOrigin(origin: string): boolean {
    return this.corsOrigins.includes(origin) || this.isOwnOrigin(origin);
  }

  /** Whether the service's own pages have this origin; outside production those of this machine are taken for them. */
  isOwnOrigin(origin: string): boolean {
    return origin === new URL(this.issuer).origin || (!this.production && LOCALHOST.test(origin));
  }

  /** The `aud` of a token for this `resource` (RFC 8707); undefined for an unknown one. Without one it is `audience`. */
  audienceOf(resource: string | undefined): string | undefined {
    if (resource === undefined || resource === this.audience) return this.audience;
    return this.resourceAudiences.includes(resource) ? resource : undefined;
  }

  /** The code of a test number; undefined for every other, and for one that has expired. */
  testCode(phoneNumber: string): string | undefined {
    const found = this.testNumbers.find((test) => test.phoneNumber === phoneNumber);
    if (found === undefined) return this.magicState(phoneNumber) && MAGIC_CODE;
    const alive = found.expiresAt === undefined || found.expiresAt.getTime() > Date.now();
    return alive ? found.code : undefined;
  }

  /** The state that a magic number shows; undefined for every other number, and for one of TEST_NUMBERS. */
  magicState(phoneNumber: string): MagicState | undefined {
    if (!this.magicNumbers || this.testNumbers.some((test) => test.phoneNumber === phoneNumber))
      return undefined;
    return MAGIC_STATES[phoneNumber];
  }

  /** Values that no log line and no finding may contain, in any form. */
  get knownSecrets(): string[] {
    return [
      ...this.secrets,
      this.subjectSecret,
      ...this.introspectionClients.map(({ secret }) => secret),
      ...this.alertWebhookSecrets.map((key) => key.toString('base64')),
      this.alertWebhookUrl ?? '',
      this.startMessagingApiKey ?? '',
      this.sendWithSes?.templateKey ?? '',
      parseRedisUrl(this.redisUrl ?? '')?.password ?? '',
    ];
  }

  /** Half of these values are secrets, and a logger serialises every object that it gets. */
  toJSON(): string {
    return '[Config]';
  }

  [inspect.custom](): string {
    return '[Config]';
  }
}
