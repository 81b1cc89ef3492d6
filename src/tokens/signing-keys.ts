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
import { FilePoller } from '../config/file-poller';
import { Logger } from '../logging/logger';
import { Metrics } from '../metrics/metrics';

/** RFC 7517, with the members of RFC 7518 section 6.2.1 or 6.3.1. */
export type PublicJwk = Record<string, string>;

export interface SigningKey {
  /** The file's name without `.pem`, as `kid` in tokens and in the JWKS. */
  kid: string;
  /** A P-256 key signs access tokens. An RSA key signs ID tokens and nothing else. */
  alg: 'ES256' | 'RS256';
  /** Milliseconds since 1970; it signs from then on. */
  activeFrom: number;
  privateKey: KeyObject;
  publicKey: KeyObject;
}

const FILE_NAME = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z-[\w.-]+\.pem$/;

/** RFC 7518 section 3.3. */
const RSA_BITS = 2_048;

/** Resource servers may cache the public keys for this long, so a key must be published this long before it signs. */
export const JWKS_CACHE_SECONDS = 300;

/**
 * The P-256 keys that sign access tokens, and the RSA keys that sign ID tokens. The newest active key signs, so replicas agree without messages. All
 * keys are published and verify, so that a resource server knows a key before it signs. The folder is read again when it
 * changes. While it holds a broken file, the keys in use stay.
 */
@Injectable()
export class SigningKeys implements OnModuleDestroy {
  private keys: readonly SigningKey[];
  private readonly poller: FilePoller<Files> | undefined;
  private inUse = '';
  /** The fault that was logged last; empty when there is none. */
  private loggedFault = '';
  private readonly listeners: (() => void)[] = [];

  constructor(
    config: Config,
    private readonly logger: Logger,
    private readonly metrics: Metrics,
  ) {
    const folder = config.jwtKeysDir;
    if (folder === undefined) {
      logger.warn('JWT_KEYS_DIR is not set: the key that signs tokens ends with this process');
      this.keys = [generated()];
      return;
    }
    const files = readFolder(folder);
    this.keys = parse(files);
    this.inUse = fingerprint(files);
    this.countInUse();
    this.poller = new FilePoller(() => readFolder(folder), fingerprint, files);
    this.poller.start(() => {
      this.poll();
    });
  }

  onModuleDestroy(): void {
    this.poller?.stop();
  }

  /** Calls the listener after every poll: a key also begins to sign when its time comes. */
  onPoll(listener: () => void): void {
    this.listeners.push(listener);
  }

  /** Reads the folder again, and takes over a new valid set of keys that two reads in a row returned. */
  poll(): void {
    try {
      const files = this.poller?.poll();
      if (files !== undefined) this.use(files);
    } catch (error) {
      this.metrics.secretsRefused.set({ source: 'signing_keys' }, 1);
      const fault = String(error);
      if (fault !== this.loggedFault) {
        this.loggedFault = fault;
        this.logger.error('The signing keys could not be read again: the keys in use stay', { error });
      }
    }
    for (const listener of this.listeners) listener();
  }

  private use(files: Files): void {
    const next = fingerprint(files);
    if (next === this.inUse && this.loggedFault === '') return;
    this.keys = parse(files);
    this.inUse = next;
    this.loggedFault = '';
    this.countInUse();
    this.logger.info('Signing keys have changed', { kids: this.keys.map((key) => key.kid) });
  }

  private countInUse(): void {
    this.metrics.secretsRead.set({ source: 'signing_keys' }, Date.now() / 1_000);
    this.metrics.secretsRefused.set({ source: 'signing_keys' }, 0);
  }

  /** The key that signs now. Before the time of every key, the first of them. */
  current(now = Date.now()): SigningKey {
    return signingKey(this.keys, now);
  }

  /** The key that signs ID tokens now: the newest active RSA key, because many clients know RS256 only, else as `current`. */
  currentOfIdTokens(now = Date.now()): SigningKey {
    const active = this.keys.filter(({ alg, activeFrom }) => alg === 'RS256' && activeFrom <= now);
    return active.at(-1) ?? this.current(now);
  }

  /** The published keys, in the order of activation. */
  get published(): readonly SigningKey[] {
    return this.keys;
  }

  find(kid: unknown): SigningKey | undefined {
    return this.keys.find((key) => key.kid === kid);
  }

  /** RFC 7517 section 5: public members only. */
  jwks(): { keys: PublicJwk[] } {
    const keys = this.keys.map(({ kid, alg, publicKey }) => {
      const { kty = '', crv, x, y, n, e } = publicKey.export({ format: 'jwk' });
      const members = alg === 'ES256' ? { kty, crv, x, y } : { kty, n, e };
      return { ...members, kid, use: 'sig', alg } as PublicJwk;
    });
    return { keys };
  }
}

/** The key that signs access tokens at this time. The keys are in the order of activation. */
export function signingKey(keys: readonly SigningKey[], now: number): SigningKey {
  const own = keys.filter(({ alg }) => alg === 'ES256');
  const key = own.filter(({ activeFrom }) => activeFrom <= now).at(-1) ?? own[0];
  if (key === undefined) throw new Error('There is no signing key');
  return key;
}

/**
 * The keys of a folder in the order of activation. Throws as at the start of the service; the error names the file at most.
 */
export function readSigningKeys(folder: string): readonly SigningKey[] {
  return parse(readFolder(folder));
}

type Files = readonly { name: string; pem: Buffer }[];

function readFolder(folder: string): Files {
  // Kubernetes swaps a mounted secret by entries that start with `..`.
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

/** The keys in the order of activation. Throws when one is of another kind, or none is a P-256 key; the error names the file, never its content. */
function parse(files: Files): SigningKey[] {
  if (files.length === 0) throw new Error('JWT_KEYS_DIR holds no .pem file: make one with `npm run keys`');
  const keys = files.map(parseKey).sort((a, b) => a.activeFrom - b.activeFrom || (a.kid < b.kid ? -1 : 1));
  if (keys.some(({ alg }) => alg === 'ES256')) return keys;
  throw new Error('JWT_KEYS_DIR holds no P-256 key, which signs access tokens: make one with `npm run keys`');
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
  // Date.parse reads 30 February as 2 March.
  const read = Number.isNaN(activeFrom) ? '' : new Date(activeFrom).toISOString().slice(0, 16);
  if (read !== `${year}-${month}-${day}T${hour}:${minute}`) {
    throw new Error(`JWT_KEYS_DIR: ${file} does not begin with a valid date`);
  }
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(pem);
  } catch {
    // Without the cause, because OpenSSL's message may quote the file's content.
    throw new Error(`JWT_KEYS_DIR: ${file} is not a readable PEM private key`);
  }
  const alg = algorithmOf(privateKey);
  if (alg === undefined) {
    throw new Error(
      `JWT_KEYS_DIR: ${file} is neither a P-256 key nor an RSA key of ${RSA_BITS} bits or more`,
    );
  }
  return {
    kid: file.slice(0, -'.pem'.length),
    alg,
    activeFrom,
    privateKey,
    publicKey: createPublicKey(privateKey),
  };
}

function algorithmOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): SigningKey['alg'] | undefined {
  const { namedCurve, modulusLength = 0 } = asymmetricKeyDetails ?? {};
  if (namedCurve === 'prime256v1') return 'ES256';
  return asymmetricKeyType === 'rsa' && modulusLength >= RSA_BITS ? 'RS256' : undefined;
}

function generated(): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const now = new Date();
  const kid = `${now.toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-${randomBytes(4).toString('hex')}`;
  return { kid, alg: 'ES256', activeFrom: now.getTime(), privateKey, publicKey };
}
