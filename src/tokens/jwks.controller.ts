import { Controller, Get, Header } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import type { JWK } from 'jose';
import { ApiProblems } from '../errors/api-problems';
import { JWKS_CACHE_SECONDS, SigningKeys } from './signing-keys';

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
  @ApiProblems('payload_too_large', 'internal_error')
  async read(): Promise<{ keys: JWK[] }> {
    return this.keys.jwks();
  }
}
