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
  required: ['grant_type', 'refresh_token'],
  properties: {
    grant_type: { ...text, enum: ['refresh_token'] },
    refresh_token: text,
    client_id: { ...text, description: 'Optional; the value of AUDIENCE.' },
    resource: {
      ...text,
      description: 'Optional: the `aud` of the access token, one of RESOURCE_AUDIENCES (RFC 8707).',
    },
  },
};

export const TOKEN_ANSWER = {
  type: 'object' as const,
  required: ['access_token', 'token_type', 'expires_in', 'refresh_token'],
  properties: {
    access_token: text,
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
