import { Controller, Get, Header, Res } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { ApiProblems } from '../http/api-problems';
import { isNotModified } from '../http/conditional';
import { JWKS_CACHE_SECONDS, SigningKeys, type PublicJwk } from './signing-keys';

@ApiTags('Verify tokens')
@Controller('.well-known')
export class JwksController {
  constructor(private readonly keys: SigningKeys) {}

  @Get('jwks.json')
  @Header('Cache-Control', `public, max-age=${JWKS_CACHE_SECONDS}`)
  @ApiOperation({
    operationId: 'jwks',
    summary: 'The public keys that verify access tokens',
    description:
      'RFC 7517. A new key is published before it signs: a library that refreshes its JWKS needs no restart.',
    security: [],
  })
  @ApiOkResponse({
    description: 'A JWK set',
    schema: {
      type: 'object',
      required: ['keys'],
      properties: { keys: { type: 'array', items: { type: 'object', additionalProperties: true } } },
    },
  })
  @ApiResponse({ status: 304, description: 'The set of the If-None-Match header is still the current one' })
  @ApiProblems('payload_too_large', 'internal_error')
  read(@Res({ passthrough: true }) reply: FastifyReply): { keys: PublicJwk[] } | undefined {
    const jwks = this.keys.jwks();
    return isNotModified(reply, JSON.stringify(jwks)) ? undefined : jwks;
  }
}
