import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  type KeyObject,
} from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Injectable, type OnModuleDestroy } from '@nestjs/common';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';

/** RFC 7517, with the members of RFC 7518 section 6.2.1. */
export type PublicJwk = Record<'kty' | 'crv' | 'x' | 'y' | 'kid' | 'use' | 'alg', string>;

export interface SigningKey {
  /** The file's name without `.pem`, as `kid` in tokens and in the JWKS. */
  kid: string;
  /** Milliseconds since 1970; it signs from then on. */
  activeFrom: number;
  privateKey: KeyObject;
  publicKey: KeyObject;
}

const FILE_NAME = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z-[\w.-]+\.pem$/;

/** For how long the public keys may be kept by who fetched them: a key must be published this long before it signs. */
export const JWKS_CACHE_SECONDS = 300;

/** How soon a new or removed key counts. Looked at, not watched: Kubernetes swaps a symlink that watchers lose sight of. */
const POLL_EVERY_MS = 2_000;

/**
 * The P-256 keys that sign access tokens. The newest whose time has come signs, so replicas agree without talking; all
 * are published and verify, so that a resource server knows a key before it signs. The folder is read again when it
 * changes; while it holds a broken file, the old set stays.
 */
@Injectable()
export class SigningKeys implements OnModuleDestroy {
  private keys: readonly SigningKey[];
  /** The folder's content and fault as they were last seen, so that each is told once. */
  private seen = '';
  private fault = '';
  private readonly timer: NodeJS.Timeout | undefined;
  private readonly folder: string | undefined;

  constructor(
    config: Config,
    private readonly logger: Logger,
    private readonly metrics: Metrics,
  ) {
    const folder = (this.folder = config.jwtKeysDir);
    if (folder === undefined) {
      logger.warn('JWT_KEYS_DIR is not set: tokens are signed by a key that ends with this process');
      this.keys = [generated()];
      return;
    }
    const files = readFolder(folder);
    this.keys = parse(files);
    this.seen = fingerprint(files);
    this.tellInUse();
    this.timer = setInterval(() => {
      this.poll();
    }, POLL_EVERY_MS).unref();
  }

  onModuleDestroy(): void {
    clearInterval(this.timer);
  }

  /** Reads the folder again, and takes over what it holds if that is a good set. A timer does it every two seconds. */
  poll(): void {
    if (this.folder === undefined) return;
    try {
      const files = readFolder(this.folder);
      const now = fingerprint(files);
      if (now === this.seen) return;
      this.seen = now;
      this.keys = parse(files);
      this.fault = '';
      this.tellInUse();
      this.logger.info('Signing keys have changed', { kids: this.keys.map((key) => key.kid) });
    } catch (error) {
      this.metrics.secretsRefused.set({ source: 'signing_keys' }, 1);
      // The next look judges anew: what was unreadable may come back as it was.
      this.seen = '';
      const fault = String(error);
      if (fault === this.fault) return;
      this.fault = fault;
      this.logger.error('The signing keys could not be read again: the old set stays', { error });
    }
  }

  private tellInUse(): void {
    this.metrics.secretsRead.set({ source: 'signing_keys' }, Date.now() / 1_000);
    this.metrics.secretsRefused.set({ source: 'signing_keys' }, 0);
  }

  /** The key that signs now. While every key is still to come, the first of them. */
  current(now = Date.now()): SigningKey {
    return signingKey(this.keys, now);
  }

  /** All that are published, in the order of activation. */
  get published(): readonly SigningKey[] {
    return this.keys;
  }

  find(kid: unknown): SigningKey | undefined {
    return this.keys.find((key) => key.kid === kid);
  }

  /** RFC 7517 section 5: public members only. */
  jwks(): { keys: PublicJwk[] } {
    const keys = this.keys.map(({ kid, publicKey }) => {
      // Of a P-256 key Node.js gives all four.
      const { kty = '', crv = '', x = '', y = '' } = publicKey.export({ format: 'jwk' });
      return { kty, crv, x, y, kid, use: 'sig', alg: 'ES256' };
    });
    return { keys };
  }
}

/** Of keys in the order of activation, the one that signs at this time. */
export function signingKey(keys: readonly SigningKey[], now: number): SigningKey {
  const active = keys.filter((key) => key.activeFrom <= now);
  const key = active.at(-1) ?? keys[0];
  if (key === undefined) throw new Error('There is no signing key');
  return key;
}

/** The keys of a folder in the order of activation. Throws, naming the file at most, where the service would not start. */
export function readSigningKeys(folder: string): readonly SigningKey[] {
  return parse(readFolder(folder));
}

type Files = readonly { name: string; pem: Buffer }[];

function readFolder(folder: string): Files {
  // Names that start with `..` are how Kubernetes swaps a mounted secret.
  const names = readdirSync(folder).filter((name) => name.endsWith('.pem') && !name.startsWith('.'));
  return names.sort().map((name) => ({ name, pem: readFile(folder, name) }));
}

function readFile(folder: string, name: string): Buffer {
  try {
    return readFileSync(join(folder, name));
  } catch (cause) {
    throw new Error(`JWT_KEYS_DIR: ${name} is not a readable PEM private key`, { cause });
  }
}

function fingerprint(files: Files): string {
  const hash = createHash('sha256');
  for (const { name, pem } of files) hash.update(`${name}:${pem.length}:`).update(pem);
  return hash.digest('hex');
}

/** The keys in the order of activation. Throws, naming the file and nothing of its content, when one is no P-256 key. */
function parse(files: Files): SigningKey[] {
  if (files.length === 0) throw new Error('JWT_KEYS_DIR holds no .pem file: make one with `npm run keys`');
  return files.map(parseKey).sort((a, b) => a.activeFrom - b.activeFrom || (a.kid < b.kid ? -1 : 1));
}

function parseKey({ name: file, pem }: Files[number]): SigningKey {
  const name = FILE_NAME.exec(file);
  if (name === null) {
    throw new Error(
      `JWT_KEYS_DIR: ${file} does not begin with its activation time, as 20261120T1000Z-name.pem`,
    );
  }
  const [, year, month, day, hour, minute] = name;
  const activeFrom = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:00Z`);
  // Date.parse makes 2 March of 30 February.
  const read = Number.isNaN(activeFrom) ? '' : new Date(activeFrom).toISOString().slice(0, 16);
  if (read !== `${year}-${month}-${day}T${hour}:${minute}`) {
    throw new Error(`JWT_KEYS_DIR: ${file} begins with no date`);
  }
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(pem);
  } catch {
    // Not the cause: OpenSSL's message may quote what it read.
    throw new Error(`JWT_KEYS_DIR: ${file} is not a readable PEM private key`);
  }
  if (privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new Error(`JWT_KEYS_DIR: ${file} is not a P-256 key`);
  }
  return {
    kid: file.slice(0, -'.pem'.length),
    activeFrom,
    privateKey,
    publicKey: createPublicKey(privateKey),
  };
}

function generated(): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const now = new Date();
  const kid = `${now.toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-${randomBytes(4).toString('hex')}`;
  return { kid, activeFrom: now.getTime(), privateKey, publicKey };
}
