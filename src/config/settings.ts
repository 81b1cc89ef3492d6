import { readFileSync } from 'node:fs';
import { oneOf, type Rule } from './rules';

/** Variables by name, as in `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The text of the file that a `NAME_FILE` names; throws when there is none to be read. */
export type ReadFile = (path: string) => string;

/** Editors and `echo` end a file with a newline; every character before it belongs to the secret. */
export const readText: ReadFile = (path) => readFileSync(path, 'utf8').replace(/\r?\n$/, '');

/** Every variable that is read, in the order of the documentation; each may be given as `NAME_FILE` too. */
export const SETTING_NAMES = [
  'NODE_ENV',
  'HOST',
  'PORT',
  'MANAGEMENT_PORT',
  'ISSUER',
  'AUDIENCE',
  'RESOURCE_AUDIENCES',
  'REDIS_URL',
  'PROVIDERS',
  'STARTMESSAGING_API_KEY',
  'STARTMESSAGING_BASE_URL',
  'STARTMESSAGING_CONTRACT',
  'STARTMESSAGING_TEMPLATE_ID',
  'STARTMESSAGING_APP_NAME',
  'STARTMESSAGING_WALLET_UNIT',
  'SENDWITHSES_TEMPLATE_KEY',
  'SENDWITHSES_BASE_URL',
  'SENDWITHSES_SENDER_ID',
  'SENDWITHSES_ORIGINATION_NUMBER',
  'SENDWITHSES_SENT_IF',
  'SENDWITHSES_VERIFIED_IF',
  'UPSTREAM_TIMEOUT_MS',
  'UPSTREAM_CONNECT_TIMEOUT_MS',
  'UPSTREAM_RETRY_DELAY_MS',
  'UPSTREAM_DEADLINE_MS',
  'KEEP_ALIVE_SECONDS',
  'SHUTDOWN_DELAY_SECONDS',
  'SECRET',
  'SUBJECT_SECRET',
  'JWT_KEYS_DIR',
  'OTP_TTL_SECONDS',
  'OTP_LENGTH',
  'OTP_MAX_ATTEMPTS',
  'ACCESS_TOKEN_TTL_SECONDS',
  'SESSION_IDLE_TTL_SECONDS',
  'SESSION_MAX_TTL_SECONDS',
  'SESSIONS_PER_USER',
  'REFRESH_GRACE_SECONDS',
  'TOKEN_PHONE_NUMBER',
  'LIMIT_PHONE',
  'LIMIT_IP',
  'LIMIT_VERIFY_IP',
  'LIMIT_GLOBAL',
  'LIMIT_FAILED_CODES',
  'BUDGET_PAISE_PER_HOUR',
  'BUDGET_PAISE_PER_DAY',
  'SMS_PRICE_PAISE',
  'BUDGET_RESERVE_PERCENT',
  'WALLET_ALERT_PAISE',
  'ABUSE_CONVERSION',
  'ABUSE_WRONG_CODES',
  'EXTRA_MOBILE_SERIES',
  'TRUSTED_PROXIES',
  'CORS_ORIGINS',
  'COOKIE_INSECURE',
  'LOGIN_PAGE',
  'LOGIN_RETURN_ORIGINS',
  'LOGIN_APP_NAME',
  'LOGIN_LOGO_FILE',
  'LOGIN_ACCENT',
  'LOGIN_PRIVACY_URL',
  'LOGIN_TERMS_URL',
  'OAUTH_CLIENTS',
  'INTROSPECTION_CLIENTS',
  'ADMIN_TOKENS',
  'TEST_NUMBERS',
  'MAGIC_NUMBERS',
  'AUDIT_STREAM_EVENTS',
  'ALERT_WEBHOOK_URL',
  'ALERT_WEBHOOK_SECRET',
  'SWAGGER',
  'PHONE_INBOX_URL',
  'LOG_LEVEL',
] as const;

/** Names of settings that are gone, with what stands in their place. */
const FORMER_NAMES: Readonly<Record<string, string>> = {
  GUARD_CONVERSION: 'ABUSE_CONVERSION',
  GUARD_WRONG_CODES: 'ABUSE_WRONG_CODES',
  UPSTREAM_MAX_ATTEMPTS: 'the constant of three calls',
};

/** A variable of Node.js, and no setting: it switches the verification of certificates off. */
const UNVERIFIED_TLS = 'NODE_TLS_REJECT_UNAUTHORIZED';

export type NodeEnv = 'development' | 'test' | 'production';
export type SettingName = (typeof SETTING_NAMES)[number];

/** Everything that is wrong with the configuration, one fault a line: names and rules, never values. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';

  constructor(readonly faults: readonly string[]) {
    super(faults.join('\n'));
  }
}

/** Reads settings one by one and collects what is wrong with them, so that all of it is told at once. */
export class Settings {
  readonly warnings: string[] = [];
  readonly nodeEnv: NodeEnv;
  readonly production: boolean;
  private readonly faults: string[] = [];
  private readonly faulty = new Set<SettingName>();

  constructor(
    private readonly environment: Environment,
    private readonly readFile: ReadFile = readText,
  ) {
    this.nodeEnv = this.withDefault('NODE_ENV', oneOf('development', 'test', 'production'), 'development');
    for (const [name, successor] of Object.entries(FORMER_NAMES)) {
      if (environment[name] || environment[`${name}_FILE`])
        this.warnings.push(`${name} is no longer a setting and has no effect: ${successor} replaces it`);
    }
    // A misspelt NODE_ENV is held to production's rules: it must not switch them off, not even in what is reported.
    this.production = this.nodeEnv === 'production' || this.faulty.has('NODE_ENV');
    // Node.js would accept every certificate. An attacker on the way would read the API key, codes and Redis's password.
    if (environment[UNVERIFIED_TLS] === '0') {
      if (this.production) this.faults.push(`${UNVERIFIED_TLS} must not be 0 in production`);
      else
        this.warnings.push(`${UNVERIFIED_TLS} is 0: no certificate is verified, and production refuses it`);
    }
  }

  /** The value, or undefined when it is unset or breaks the rule. */
  optional<T>(name: SettingName, rule: Rule<T>): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = rule.read(text);
    if (value === undefined) this.refuse(name, `must be ${rule.expected}`);
    return value;
  }

  /** As `optional`, with a default. */
  withDefault<T>(name: SettingName, rule: Rule<T>, defaultValue: T): T {
    return this.optional(name, rule) ?? defaultValue;
  }

  /** As `optional`, and a fault when production leaves it out. */
  requiredInProduction<T>(name: SettingName, rule: Rule<T>): T | undefined {
    const value = this.optional(name, rule);
    if (value === undefined && this.production && !this.faulty.has(name)) {
      this.refuse(name, 'is required in production');
    }
    return value;
  }

  /** Adds a fault unless the condition holds. Says nothing of settings that are faulty already. */
  require(holds: boolean, name: SettingName, fault: string, comparedWith: SettingName = name): void {
    if (!holds && !this.faulty.has(name) && !this.faulty.has(comparedWith)) this.refuse(name, fault);
  }

  /** Adds all these faults of one setting. */
  refuseAll(name: SettingName, faults: readonly string[]): void {
    for (const fault of faults) this.refuse(name, fault);
  }

  /** Whether the value comes from a file, and so does not stand in the environment. */
  isFile(name: SettingName): boolean {
    return Boolean(this.environment[`${name}_FILE`]);
  }

  warn(name: SettingName, warning: string): void {
    this.warnings.push(`${name} ${warning}`);
  }

  /** @throws ConfigError when anything was wrong. */
  throwFaults(): void {
    if (this.faults.length > 0) throw new ConfigError(this.faults);
  }

  private refuse(name: SettingName, fault: string): void {
    this.faulty.add(name);
    this.faults.push(`${name} ${fault}`);
  }

  /** The text of a setting, unless it stands in literal quotes. */
  private text(name: SettingName): string | undefined {
    const text = this.rawText(name);
    if (text === undefined || !holdsQuotes(text)) return text;
    this.refuse(
      name,
      'must not stand in quotes: they would be part of the value (docker --env-file keeps them)',
    );
    return undefined;
  }

  private rawText(name: SettingName): string | undefined {
    const value = this.environment[name];
    const path = this.environment[`${name}_FILE`];
    if (!path) return value === '' ? undefined : value;
    if (value) {
      this.refuse(name, `and ${name}_FILE are both set: choose one`);
      return undefined;
    }
    try {
      return this.readFile(path) || undefined;
    } catch {
      // The error's own message holds the path, which is a value like any other.
      this.faulty.add(name);
      this.faults.push(`${name}_FILE must name a readable file`);
      return undefined;
    }
  }
}

/**
 * Whether the text, an entry of its list, or what stands behind the name of an entry (`id:"secret"`), is in quotes. A shell and
 * a `.env` file take quotes away, and `docker --env-file` and a Secret keep them: a replica would have another secret.
 */
function holdsQuotes(text: string): boolean {
  const quoted = /^(?:[\w.~-]+:)?(["'`]).*\1$/s;
  // The entries of JSON are in quotes.
  if (/^\s*[[{]/.test(text)) return false;
  return [text, ...text.split(',')].some((part) => quoted.test(part.trim()));
}
