import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { ConfigError } from '../../src/config/settings';
import { log } from '../core/log';
import { readSettings, type EditionSettings } from '../core/settings';

const READ_EVERY_MS = 300_000;
/** After a read that failed, the next one comes sooner. */
const RETRY_EVERY_MS = 30_000;

/** The settings in one JSON secret. The secret is cached, and read again every five minutes. */
export class SecretSettings {
  private readonly client = new SecretsManagerClient({
    maxAttempts: 2,
    requestHandler: { connectionTimeout: 1_000, requestTimeout: 2_000 },
  });
  private current: EditionSettings | undefined;
  private text = '';
  private readAgainAt = 0;

  constructor(private readonly secretId: string) {}

  /**
   * The settings as they are now: the same object until the secret changes. If a later read fails, or its value has faults,
   * the settings in use stay. A failed first read is thrown, and the next request reads again.
   */
  async get(): Promise<EditionSettings> {
    if (this.current !== undefined && Date.now() < this.readAgainAt) return this.current;
    try {
      const text = await this.read();
      if (this.current === undefined || text !== this.text) {
        this.current = await readSettings(parse(text));
        this.text = text;
        for (const warning of this.current.warnings) log('warn', warning);
      }
      this.readAgainAt = Date.now() + READ_EVERY_MS;
    } catch (error) {
      if (this.current === undefined) throw error;
      this.readAgainAt = Date.now() + RETRY_EVERY_MS;
      log('error', 'The secret could not be read again: the settings in use stay', { error });
    }
    return this.current;
  }

  private async read(): Promise<string> {
    const { SecretString } = await this.client.send(new GetSecretValueCommand({ SecretId: this.secretId }));
    return SecretString ?? '';
  }
}

/** The entries of the secret. Numbers and booleans are texts, as in an environment. */
function parse(text: string): Record<string, string> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Without the cause: its message quotes the secret.
    throw new ConfigError(['The secret is not JSON']);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ConfigError(['The secret is not a JSON object']);
  }
  const entries = Object.entries(value).filter(([, each]) =>
    ['string', 'number', 'boolean'].includes(typeof each),
  );
  return Object.fromEntries(entries.map(([name, each]) => [name, String(each)]));
}
