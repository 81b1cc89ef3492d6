import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Injectable } from '@nestjs/common';
import { exportJWK, type JWK } from 'jose';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';

export interface SigningKey {
  /** The file's name without `.pem`, as `kid` in tokens and in the JWKS. */
  kid: string;
  /** Milliseconds since 1970; it signs from then on. */
  activeFrom: number;
  privateKey: KeyObject;
  publicKey: KeyObject;
}

const FILE_NAME = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z-[\w.-]+\.pem$/;

/**
 * The P-256 keys that sign access tokens. The newest whose time has come signs, so replicas agree without talking; all
 * are published and verify, so that a resource server knows a key before it signs.
 */
@Injectable()
export class SigningKeys {
  private readonly keys: readonly SigningKey[];

  constructor(config: Config, logger: Logger) {
    if (config.jwtKeysDir === undefined) {
      logger.warn('JWT_KEYS_DIR is not set: tokens are signed by a key that ends with this process');
      this.keys = [generated()];
    } else {
      this.keys = readKeys(config.jwtKeysDir);
    }
  }

  /** The key that signs now. While every key is still to come, the first of them. */
  current(now = Date.now()): SigningKey {
    const active = this.keys.filter((key) => key.activeFrom <= now);
    const key = active.at(-1) ?? this.keys[0];
    if (key === undefined) throw new Error('There is no signing key');
    return key;
  }

  find(kid: unknown): SigningKey | undefined {
    return this.keys.find((key) => key.kid === kid);
  }

  /** RFC 7517 section 5: public members only. */
  async jwks(): Promise<{ keys: JWK[] }> {
    const keys = this.keys.map(async ({ kid, publicKey }) => {
      const { kty, crv, x, y } = await exportJWK(publicKey);
      return { kty, crv, x, y, kid, use: 'sig', alg: 'ES256' } as JWK;
    });
    return { keys: await Promise.all(keys) };
  }
}

/** Reads every PEM file of the folder, in the order of activation. Throws, naming the file, when one is no P-256 key. */
function readKeys(folder: string): SigningKey[] {
  // Names that start with `..` are how Kubernetes swaps a mounted secret.
  const files = readdirSync(folder).filter((name) => name.endsWith('.pem') && !name.startsWith('..'));
  if (files.length === 0) throw new Error('JWT_KEYS_DIR holds no .pem file');
  return files
    .map((file) => readKey(folder, file))
    .sort((a, b) => a.activeFrom - b.activeFrom || (a.kid < b.kid ? -1 : 1));
}

function readKey(folder: string, file: string): SigningKey {
  const name = FILE_NAME.exec(file);
  if (name === null)
    throw new Error(
      `JWT_KEYS_DIR: ${file} does not begin with its activation time, as 20261120T1000Z-name.pem`,
    );
  const [, year, month, day, hour, minute] = name;
  const activeFrom = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:00Z`);
  if (Number.isNaN(activeFrom)) throw new Error(`JWT_KEYS_DIR: ${file} begins with no date`);
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(readFileSync(join(folder, file)));
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
  const kid = `${new Date().toISOString().slice(0, 16).replace(/[-:]/g, '')}Z-development`;
  return { kid, activeFrom: 0, privateKey, publicKey };
}
