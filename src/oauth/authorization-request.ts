import type { Config, OAuthClient } from '../config/config';
import type { OAuthErrorCode } from '../http/oauth-error';
import type { CodeRequest } from '../sessions/app-sessions';
import type { OAuthClients } from './oauth-clients';

const SCOPES = ['openid', 'phone', 'offline_access'];
/** RFC 7636 section 4.2: the SHA-256 of the verifier in base64url. */
const CHALLENGE = /^[\w-]{43}$/;
const PROMPTS = ['none', 'login', 'select_account', 'consent'];

export type Parameters = Readonly<Record<string, unknown>>;

/** Where an answer goes, and what RFC 6749 section 4.1.2 and RFC 9207 put into it. */
export class Redirect {
  constructor(
    private readonly uri: string,
    private readonly issuer: string,
    private readonly state: string | undefined,
  ) {}

  /** `iss` tells a client of several servers which one answers: a code cannot be sent to another one (mix-up). */
  location(answer: Readonly<Record<string, string>>): string {
    const parameters = new URLSearchParams(answer);
    if (this.state !== undefined) parameters.set('state', this.state);
    parameters.set('iss', this.issuer);
    return `${this.uri}${this.uri.includes('?') ? '&' : '?'}${parameters.toString()}`;
  }

  error(error: OAuthErrorCode, description: string): string {
    return this.location({ error, error_description: description });
  }
}

export interface AuthorizationRequest extends Omit<CodeRequest, 'newFrom'> {
  readonly prompt: { none: boolean; login: boolean };
}

export type Reading =
  /** The client or its redirect URI is not registered: the user stays here. */
  | { kind: 'refused' }
  | { kind: 'error'; location: string }
  | { kind: 'valid'; client: OAuthClient; redirect: Redirect; request: AuthorizationRequest };

/** Reads an authorization request. Nothing is sent to a redirect URI before its registration was found (open redirect). */
export function readAuthorization(parameters: Parameters, clients: OAuthClients, config: Config): Reading {
  const client = clients.find(parameters.client_id);
  const { redirect_uri: redirectUri, state } = parameters;
  if (client === undefined || !clients.mayRedirect(client, redirectUri)) return { kind: 'refused' };
  const redirect = new Redirect(redirectUri, config.issuer, typeof state === 'string' ? state : undefined);
  const fault = faultOf(parameters, client, config);
  if (fault !== undefined) return { kind: 'error', location: redirect.error(...fault) };
  const text = (name: string): string | undefined => parameters[name] as string | undefined;
  const wanted = (text('scope') ?? '').split(' ');
  const prompts = promptsOf(parameters);
  const maxAge = text('max_age');
  return {
    kind: 'valid',
    client,
    redirect,
    request: {
      client: client.id,
      redirectUri,
      challenge: text('code_challenge'),
      // Others, such as `profile`, are ignored (OpenID Connect Core section 3.1.2.1): the answer says what was granted.
      scopes: SCOPES.filter((scope) => wanted.includes(scope)),
      nonce: text('nonce'),
      maxAge: maxAge === undefined ? undefined : Number(maxAge),
      prompt: {
        none: prompts.includes('none'),
        login: prompts.includes('login') || prompts.includes('select_account'),
      },
    },
  };
}

const promptsOf = ({ prompt }: Parameters): string[] =>
  typeof prompt === 'string' ? prompt.split(' ').filter((word) => word !== '') : [];

type Fault = [OAuthErrorCode, string];

function faultOf(parameters: Parameters, client: OAuthClient, config: Config): Fault | undefined {
  // A parameter that is there twice could be read in two ways (RFC 6749 section 3.1).
  const twice = Object.keys(parameters).find((name) => typeof parameters[name] !== 'string');
  if (twice !== undefined) return ['invalid_request', 'Send each parameter once, as text'];
  const given = parameters as Readonly<Record<string, string | undefined>>;
  if (given.request !== undefined) return ['request_not_supported', 'request is not supported'];
  if (given.request_uri !== undefined) return ['request_uri_not_supported', 'request_uri is not supported'];
  if (given.response_type === undefined) return ['invalid_request', 'response_type is missing'];
  if (given.response_type !== 'code') {
    return ['unsupported_response_type', 'The only response_type is code'];
  }
  if (![undefined, 'query'].includes(given.response_mode)) {
    return ['invalid_request', 'The only response_mode is query'];
  }
  if (given.scope !== undefined && !/^[!#-[\]-~ ]{0,1000}$/.test(given.scope)) {
    return ['invalid_scope', 'scope has characters that no scope has'];
  }
  if (given.nonce !== undefined && !/^[ -~]{1,512}$/.test(given.nonce)) {
    return ['invalid_request', 'nonce must be 1 to 512 printable ASCII characters'];
  }
  if (given.max_age !== undefined && !/^\d{1,9}$/.test(given.max_age)) {
    return ['invalid_request', 'max_age must be a number of seconds'];
  }
  if (config.audienceOf(given.resource) === undefined) {
    return ['invalid_target', 'The resource is not one of RESOURCE_AUDIENCES'];
  }
  const prompts = promptsOf(parameters);
  if (prompts.some((prompt) => !PROMPTS.includes(prompt))) {
    return ['invalid_request', 'prompt has an unknown value'];
  }
  if (prompts.includes('none') && prompts.length > 1) {
    return ['invalid_request', 'prompt=none stands alone'];
  }
  return pkceFaultOf(given, client);
}

/** A code that leaked on its way is worthless without the verifier (code injection, RFC 9700 section 4.5). */
function pkceFaultOf(
  given: Readonly<Record<string, string | undefined>>,
  client: OAuthClient,
): Fault | undefined {
  const { code_challenge: challenge, code_challenge_method: method } = given;
  if (challenge === undefined && method === undefined) {
    return client.pkceOptional
      ? undefined
      : ['invalid_request', 'code_challenge is missing: use PKCE with S256'];
  }
  if (method !== 'S256') return ['invalid_request', 'code_challenge_method must be S256'];
  return CHALLENGE.test(challenge ?? '')
    ? undefined
    : ['invalid_request', 'code_challenge must have 43 characters of base64url'];
}
