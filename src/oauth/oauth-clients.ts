import { createHash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Config, type OAuthClient } from '../config/config';
import { constantTimeEqual } from '../crypto/mac';
import { OAuthError } from '../http/oauth-error';
import { isLoopback } from '../net/addresses';
import { formDecode, readBasic } from './client-authentication';
import { FailedClients } from './failed-clients';

type Form = Record<string, unknown>;

/** The apps of OAUTH_CLIENTS: which one a request comes from, and where the service may send its users. */
@Injectable()
export class OAuthClients {
  constructor(
    private readonly config: Config,
    private readonly failed: FailedClients,
  ) {}

  find(id: unknown): OAuthClient | undefined {
    return this.config.oauthClients.find((client) => client.id === id);
  }

  /**
   * The client of a request to the token or revocation endpoint (RFC 6749 section 2.3); undefined for the service's own
   * client. Throws `invalid_client`: a confidential client must prove its secret, and a public client has only its name.
   */
  async authenticate(request: FastifyRequest, form: Form): Promise<OAuthClient | undefined> {
    const own = form.client_id === undefined || form.client_id === this.config.audience;
    // Without apps there is only the service's own client, which has no secret that a request could prove.
    if (own && this.config.oauthClients.length === 0) return undefined;
    const header = request.headers.authorization;
    if (header !== undefined && form.client_secret !== undefined) {
      throw new OAuthError('invalid_request', 'The client authenticates in two ways');
    }
    const basic = header === undefined ? undefined : readBasic(header);
    if (header !== undefined && basic === undefined) throw refused();
    const id = basic === undefined ? form.client_id : formDecode(basic.id);
    const secret = basic === undefined ? form.client_secret : basic.secret;
    if (basic === undefined && secret === undefined && (id === undefined || id === this.config.audience)) {
      return undefined;
    }
    const client = this.find(id);
    // Failures count per client address and never per client: a stranger could otherwise lock an app out.
    const guesses = typeof secret === 'string' && secret !== '';
    if (guesses) this.failed.check(request);
    if (client === undefined || !provesItself(client, secret)) {
      if (guesses) await this.failed.count(request);
      throw refused();
    }
    // A client cannot act for another one by naming it in the form.
    if (form.client_id !== undefined && form.client_id !== client.id) {
      throw new OAuthError('invalid_request', 'client_id names another client');
    }
    return client;
  }

  /** Whether the client has registered this redirect URI. On loopback the port is free (RFC 8252 section 7.3). */
  mayRedirect(client: OAuthClient, uri: unknown): uri is string {
    if (typeof uri !== 'string') return false;
    // As text: a prefix or a pattern would be an open redirect (RFC 9700 section 4.1).
    return client.redirectUris.includes(uri) || client.redirectUris.some((own) => differsInPort(own, uri));
  }
}

const refused = (): OAuthError => new OAuthError('invalid_client', 'Client authentication failed', 401);

function provesItself({ secretDigest }: OAuthClient, secret: unknown): boolean {
  if (secretDigest === undefined) return secret === undefined || secret === '';
  if (typeof secret !== 'string') return false;
  // In constant time, and of hashes: a guesser learns no prefix. Half of the clients do not form-encode a secret.
  const [plain, decoded] = [secret, formDecode(secret)].map((text) =>
    constantTimeEqual(createHash('sha256').update(text).digest(), secretDigest),
  );
  return plain === true || decoded === true;
}

function differsInPort(own: string, given: string): boolean {
  const withoutPort = /^(http:\/\/(?:localhost|127\.0\.0\.1|\[::1\]))(?::\d{1,5})?([/?].*)?$/;
  const [, ownHost, ownRest] = withoutPort.exec(own) ?? [];
  const [, host, rest] = withoutPort.exec(given) ?? [];
  return ownHost !== undefined && isLoopback(new URL(own).hostname) && host === ownHost && rest === ownRest;
}
