import { Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { ApiError } from '../errors/api-error';
import { ClientAuthentication } from './client-authentication';

/** Lets clients of INTROSPECTION_CLIENTS pass, before anything else about the request is looked at. */
@Injectable()
export class ClientGuard implements CanActivate {
  constructor(private readonly clients: ClientAuthentication) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (await this.clients.isClient(context.switchToHttp().getRequest<FastifyRequest>())) return true;
    throw new ApiError('unauthenticated', {
      challenge: 'Basic realm="otp-login"',
      detail: 'Send the id and the secret of a client of INTROSPECTION_CLIENTS by Basic authentication.',
    });
  }
}
