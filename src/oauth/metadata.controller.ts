import { Controller, Get, Header } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { Config } from '../config/config';
import { ApiError } from '../errors/api-error';
import { ApiProblems } from '../http/api-problems';
import { IdTokens } from '../tokens/id-tokens';

const METADATA = {
  type: 'object' as const,
  required: ['issuer'],
  properties: { issuer: { type: 'string' as const } },
  additionalProperties: true,
};

@ApiTags('OAuth 2.0')
@Controller('.well-known')
export class MetadataController {
  constructor(
    private readonly config: Config,
    private readonly idTokens: IdTokens,
  ) {}

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
    schema: METADATA,
  })
  read(): Record<string, unknown> {
    return metadataOf(this.config, this.idTokens.algorithm);
  }

  @Get('openid-configuration')
  @Header('Cache-Control', 'public, max-age=300')
  @ApiOperation({
    operationId: 'openidConfiguration',
    summary: 'The same for OpenID Connect, where OAUTH_CLIENTS has clients',
    security: [],
  })
  @ApiProblems('not_found', 'payload_too_large')
  @ApiOkResponse({ description: 'OpenID Connect Discovery section 3', schema: METADATA })
  readOpenid(): Record<string, unknown> {
    if (this.config.oauthClients.length === 0) throw new ApiError('not_found');
    return this.read();
  }
}

/** Only what is true. */
function metadataOf(config: Config, idTokenAlgorithm: string): Record<string, unknown> {
  const { issuer, introspectionClients, oauthClients } = config;
  const base = issuer.replace(/\/$/, '');
  const secrets = ['client_secret_basic', 'client_secret_post'];
  const methods = ['none', ...(oauthClients.some(({ secretDigest }) => secretDigest) ? secrets : [])];
  return {
    issuer,
    token_endpoint: `${base}/oauth/token`,
    jwks_uri: `${base}/.well-known/jwks.json`,
    revocation_endpoint: `${base}/oauth/revoke`,
    // Without clients it would refuse every caller, and is not offered.
    ...(introspectionClients.length > 0
      ? {
          introspection_endpoint: `${base}/oauth/introspect`,
          introspection_endpoint_auth_methods_supported: secrets,
        }
      : {}),
    ...(oauthClients.length > 0
      ? {
          authorization_endpoint: `${base}/oauth/authorize`,
          userinfo_endpoint: `${base}/oauth/userinfo`,
          end_session_endpoint: `${base}/oauth/logout`,
          response_types_supported: ['code'],
          response_modes_supported: ['query'],
          grant_types_supported: ['authorization_code', 'refresh_token'],
          code_challenge_methods_supported: ['S256'],
          scopes_supported: ['openid', 'phone', 'offline_access'],
          claims_supported: [
            ...['iss', 'sub', 'aud', 'exp', 'iat', 'auth_time', 'amr', 'nonce', 'sid'],
            ...['phone_number', 'phone_number_verified'],
          ],
          subject_types_supported: ['public'],
          id_token_signing_alg_values_supported: [idTokenAlgorithm],
          prompt_values_supported: ['none', 'login'],
          authorization_response_iss_parameter_supported: true,
          claims_parameter_supported: false,
          request_parameter_supported: false,
          request_uri_parameter_supported: false,
          ui_locales_supported: ['en', 'hi'],
        }
      : // There is no authorization endpoint: users log in at /auth/verify-otp.
        { response_types_supported: [], grant_types_supported: ['refresh_token'] }),
    token_endpoint_auth_methods_supported: methods,
    revocation_endpoint_auth_methods_supported: methods,
  };
}
