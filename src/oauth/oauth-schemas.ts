import { ApiResponse } from '@nestjs/swagger';
import { RETRY_AFTER } from '../http/api-problems';

const text = { type: 'string' as const };
const seconds = { type: 'integer' as const };

/** The bodies of the OAuth endpoints, for the OpenAPI document: their RFCs say what they mean. */
export const OAUTH_ERROR = {
  type: 'object' as const,
  required: ['error'],
  properties: { error: { ...text, example: 'invalid_grant' }, error_description: text },
};

export const TOKEN_FORM = {
  type: 'object' as const,
  required: ['grant_type'],
  properties: {
    grant_type: { ...text, enum: ['refresh_token', 'authorization_code'] },
    refresh_token: text,
    code: text,
    redirect_uri: { ...text, description: 'As in the authorization request.' },
    code_verifier: { ...text, description: 'PKCE (RFC 7636).' },
    client_id: { ...text, description: 'A client of OAUTH_CLIENTS, or the value of AUDIENCE (the default).' },
    client_secret: { ...text, description: 'The secret of a confidential client that does not use Basic.' },
    resource: {
      ...text,
      description: 'Optional: the `aud` of the access token, one of RESOURCE_AUDIENCES (RFC 8707).',
    },
  },
};

export const TOKEN_ANSWER = {
  type: 'object' as const,
  required: ['access_token', 'token_type', 'expires_in'],
  properties: {
    access_token: text,
    id_token: { ...text, description: 'With the scope openid.' },
    scope: text,
    token_type: { ...text, enum: ['Bearer'] },
    expires_in: seconds,
    refresh_token: text,
  },
};

export const TOKEN = {
  type: 'object' as const,
  required: ['token'],
  properties: { token: text, token_type_hint: { ...text, enum: ['access_token', 'refresh_token'] } },
};

export const INTROSPECTION = {
  type: 'object' as const,
  required: ['active'],
  properties: {
    active: { type: 'boolean' as const },
    token_type: text,
    sub: text,
    sid: text,
    iss: text,
    aud: text,
    client_id: text,
    jti: text,
    iat: seconds,
    exp: seconds,
    auth_time: seconds,
  },
};

export const AUTHORIZATION = {
  type: 'object' as const,
  required: ['client_id', 'redirect_uri', 'response_type'],
  properties: {
    client_id: text,
    redirect_uri: text,
    response_type: { ...text, enum: ['code'] },
    scope: { ...text, example: 'openid phone offline_access' },
    state: text,
    nonce: text,
    code_challenge: text,
    code_challenge_method: { ...text, enum: ['S256'] },
    prompt: text,
    max_age: text,
    login_hint: text,
    ui_locales: text,
    requested_at: { ...text, description: 'The time of the page, in milliseconds since 1970.' },
  },
};

export const LOCATION = {
  type: 'object' as const,
  required: ['location'],
  properties: { location: text },
};

export const END_SESSION = {
  type: 'object' as const,
  properties: {
    id_token_hint: text,
    client_id: text,
    post_logout_redirect_uri: text,
    state: text,
    confirmed: { type: 'boolean' as const, description: 'The user pressed the button.' },
  },
};

export const ENDED = {
  type: 'object' as const,
  properties: {
    confirm: { type: 'boolean' as const, description: 'Nothing has ended: the user has to confirm it.' },
    location: text,
  },
};

export const USERINFO = {
  type: 'object' as const,
  required: ['sub'],
  properties: { sub: text, phone_number: text, phone_number_verified: { type: 'boolean' as const } },
};

/** An error of the OAuth endpoints in the OpenAPI document. */
export const oauthError = (status: number, description: string): MethodDecorator =>
  ApiResponse({
    status,
    description,
    content: { 'application/json': { schema: OAUTH_ERROR } },
    ...(status === 503 || status === 429 ? { headers: RETRY_AFTER } : {}),
  });
