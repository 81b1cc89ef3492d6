import { Controller, Get, Header } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { Config } from '../config/config';
import { ApiProblems } from '../http/api-problems';

@ApiTags('OAuth 2.0')
@Controller('.well-known')
export class MetadataController {
  private readonly metadata: Record<string, unknown>;

  constructor({ issuer, introspectionClients }: Config) {
    const base = issuer.replace(/\/$/, '');
    this.metadata = {
      issuer,
      token_endpoint: `${base}/oauth/token`,
      jwks_uri: `${base}/.well-known/jwks.json`,
      revocation_endpoint: `${base}/oauth/revoke`,
      // Without clients it would refuse every caller, and is not offered.
      ...(introspectionClients.length > 0
        ? {
            introspection_endpoint: `${base}/oauth/introspect`,
            introspection_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
          }
        : {}),
      // There is no authorization endpoint: people log in at /auth/verify-otp.
      response_types_supported: [],
      grant_types_supported: ['refresh_token'],
      token_endpoint_auth_methods_supported: ['none'],
      revocation_endpoint_auth_methods_supported: ['none'],
    };
  }

  @Get('oauth-authorization-server')
  @Header('Cache-Control', 'public, max-age=300')
  @ApiOperation({
    operationId: 'metadata',
    summary: 'Metadata of this authorization server (RFC 8414)',
    security: [],
  })
  @ApiProblems('payload_too_large')
  @ApiOkResponse({
    description: 'Only what is true',
    schema: {
      type: 'object',
      required: ['issuer'],
      properties: { issuer: { type: 'string' } },
      additionalProperties: true,
    },
  })
  read(): Record<string, unknown> {
    return this.metadata;
  }
}
