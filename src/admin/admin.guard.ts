import { createParamDecorator, Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Config, tokenDigest } from '../config/config';
import { constantTimeEqual } from '../crypto/mac';
import { ApiError } from '../errors/api-error';
import { AdminAudit } from './admin-audit';

const admins = new WeakMap<FastifyRequest, string>();

/** The name of the operator that {@link AdminGuard} found by the token. */
export const Admin = createParamDecorator((_: unknown, context: ExecutionContext): string => {
  const name = admins.get(context.switchToHttp().getRequest<FastifyRequest>());
  // A route without the guard must fail and not run without an operator.
  if (name === undefined) throw new ApiError('unauthenticated');
  return name;
});

/** Lets operators of ADMIN_TOKENS pass. */
@Injectable()
export class AdminGuard implements CanActivate {
  constructor(
    private readonly config: Config,
    private readonly audit: AdminAudit,
  ) {}

  canActivate(context: ExecutionContext): boolean {
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const [, token = ''] = /^Bearer +([^ ]+) *$/i.exec(request.headers.authorization ?? '') ?? [];
    const name = this.nameOf(token);
    const route = request.routeOptions.url ?? '';
    if (name === undefined) {
      this.audit.refused(request.method, route);
      throw new ApiError('unauthenticated', {
        detail: 'Send an operator’s token of ADMIN_TOKENS as Authorization: Bearer <token>.',
      });
    }
    this.audit.called(name, request.method, route);
    admins.set(request, name);
    return true;
  }

  /** In constant time: every token is compared, and hashes are of one length, so a guesser learns no prefix. */
  private nameOf(token: string): string | undefined {
    const given = tokenDigest(token);
    let found: string | undefined;
    for (const { name, digest } of this.config.adminTokens) {
      if (constantTimeEqual(digest, given)) found = name;
    }
    return found;
  }
}
