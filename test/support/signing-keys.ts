import { generateKeyPairSync } from 'node:crypto';

/** A private key that may sign access tokens, as the text of a PEM file. */
export const newSigningKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString();
