import { createHash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Config } from '../config/config';
import { constantTimeEqual } from '../crypto/mac';
import { OAuthError } from '../http/oauth-error';
import { FailedClients } from './failed-clients';

type Form = Record<string, unknown>;

/** Resource servers that INTROSPECTION_CLIENTS names, by `client_secret_basic` and `client_secret_post` (RFC 6749 section 2.3.1). */
@Injectable()
export class ClientAuthentication {
  constructor(
    private readonly config: Config,
    private readonly failed: FailedClients,
  ) {}

  /**
   * Whether the request comes from one of them. Throws `invalid_request` for one that authenticates in both ways (RFC 6749
   * section 2.3), and `rate_limited` for an address with too many failures.
   */
  async isClient(request: FastifyRequest, form: Form = {}): Promise<boolean> {
    const header = request.headers.authorization;
    const posted = form.client_secret !== undefined;
    if (header !== undefined && posted) {
      throw new OAuthError('invalid_request', 'The client authenticates in two ways');
    }
    // No guess was made.
    if (header === undefined && !posted) return false;
    this.failed.check(request);
    const found =
      header === undefined
        ? this.matches(String(form.client_id), String(form.client_secret))
        : this.byBasic(header);
    if (!found) await this.failed.count(request);
    return found;
  }

  private byBasic(header: string): boolean {
    const basic = readBasic(header);
    if (basic === undefined) return false;
    const { id, secret } = basic;
    // The RFC has them form-encoded first; half of the clients do not do it. Both are tried, in the same time.
    const [plain, decoded] = [this.matches(id, secret), this.matches(formDecode(id), formDecode(secret))];
    return plain || decoded;
  }

  /** In constant time: every client is compared, and hashes are of one length, so a guesser learns no prefix. */
  private matches(id: string, secret: string): boolean {
    let found = false;
    for (const client of this.config.introspectionClients) {
      const same = constantTimeEqual(digest(`${client.id}:${client.secret}`), digest(`${id}:${secret}`));
      found = same || found;
    }
    return found;
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** The parts of `Authorization: Basic` (RFC 7617), not decoded from a form yet; undefined for another header. */
export function readBasic(header: string): { id: string; secret: string } | undefined {
  const encoded = /^Basic +([A-Za-z0-9+/]+={0,2}) *$/i.exec(header)?.[1];
  const text = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString();
  const colon = text.indexOf(':');
  return colon < 0 ? undefined : { id: text.slice(0, colon), secret: text.slice(colon + 1) };
}

export function formDecode(text: string): string {
  return new URLSearchParams(`v=${text.replace(/&/g, '%26')}`).get('v') ?? '';
}
