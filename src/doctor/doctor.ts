import { parseArgs } from 'node:util';
import { ConfigError, type Config, type Environment } from '../config/config';
import { ConfigModule } from '../config/config.module';
import { operatorToken } from '../config/admin-token';
import { Logger } from '../logging/logger';
import { checkAddresses } from './address-checks';
import { askService } from './ask-service';
import { fault, ok, warning, type Finding } from './finding';
import { checkSigningKeys } from './key-checks';
import { reachRedis } from './reach-redis';
import { checkSecrets, checkTestNumbers } from './secret-checks';
import { checkUpstream } from './upstream-checks';
import { parseRecord, WALLET_KEY, type WalletRecord } from '../wallet/wallet-record';

const USAGE =
  'npm run doctor -- [--peer address [--forwarded "X-Forwarded-For"]] [--url https://login.example]';

export interface Visit {
  /** The whole configuration; without it, the process's environment and `.env`, as for the service. */
  environment?: Environment | undefined;
  /** The arguments of the command. */
  arguments: readonly string[];
  /** Is given one line at a time. */
  print: (line: string) => void;
}

/** Looks at everything that an operator can get wrong, and says it in words. Returns the exit code: 1 with a fault. */
export async function doctor({ environment, arguments: args, print }: Visit): Promise<0 | 1> {
  let faults = 0;
  let secrets: readonly string[] = [];
  const tell = ({ check, level, message }: Finding): void => {
    if (level === 'fault') faults += 1;
    // A library or a server may have quoted a secret: none may be printed.
    const clean = secrets.reduce((text, secret) => text.replaceAll(secret, '***'), message);
    print(`${(level === 'fault' ? 'FAULT' : level).padEnd(8)} ${check}: ${clean}`);
  };

  const options = readOptions(args);
  if (options === undefined) {
    tell(fault('usage', USAGE));
    return 1;
  }
  let config: Config;
  try {
    ({ config } = ConfigModule.register(environment));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const each of error.faults) tell(fault('configuration', each));
    return 1;
  }
  const token = operatorToken(environment);
  secrets = secretsOf(config, token);
  let wallet: WalletRecord = {};
  const quiet = new Logger('silent', { write: () => undefined });

  const checks: (() => Finding[] | Promise<Finding[]>)[] = [
    () => [ok('configuration', `is valid (NODE_ENV ${config.nodeEnv})`)],
    () => config.warnings.map((each) => warning('configuration', each)),
    () => checkSecrets(config),
    () => checkSigningKeys(config),
    () => checkTestNumbers(config),
    () => checkAddresses(config, quiet, options),
    () =>
      reachRedis(config.redisUrl, async (client) => {
        wallet = parseRecord(await client.get(WALLET_KEY).catch(() => null));
      }),
    () => checkUpstream(config, wallet),
    () => (options.url === undefined ? [] : askService(options.url, token)),
  ];
  for (const check of checks) for (const finding of await check()) tell(finding);
  return faults === 0 ? 0 : 1;
}

interface Options {
  peer?: string | undefined;
  forwarded?: string | undefined;
  url?: string | undefined;
}

function readOptions(args: readonly string[]): Options | undefined {
  const text = { type: 'string' } as const;
  try {
    return parseArgs({ args: [...args], options: { peer: text, forwarded: text, url: text } }).values;
  } catch {
    // Its message repeats what was typed.
    return undefined;
  }
}

/** Everything that must not be printed. The longest first: one may be part of another. */
function secretsOf(config: Config, token: string | undefined): string[] {
  return [...config.knownSecrets, token ?? '']
    .filter((secret) => secret.length >= 6)
    .sort((a, b) => b.length - a.length);
}
