// Written by `npm run client:types` from the OpenAPI document.
export interface components {
  schemas: {
    SendOtpRequest: { phoneNumber: string; deviceToken?: string; altcha?: string };
    OtpRequestResponse: {
      requestId: string;
      expiresAt: string;
      expiresInSeconds: number;
      attemptsLeft: number;
      resendAt: string;
      resendInSeconds: number;
      codeLength: number;
      delivery: 'accepted' | 'sent' | 'delivered' | 'failed' | 'unknown';
    };
    OtpStatusResponse: {
      expiresAt: string;
      expiresInSeconds: number;
      attemptsLeft: number;
      resendAt: string;
      resendInSeconds: number;
      codeLength: number;
      delivery: 'accepted' | 'sent' | 'delivered' | 'failed' | 'unknown';
      state: 'pending' | 'verified' | 'expired' | 'exhausted';
      pollAfterSeconds: number;
    };
    VerifyOtpRequest: {
      requestId: string;
      otpCode: string;
      deviceToken?: string;
      tokenDelivery?: 'body' | 'cookie';
      deviceName?: string;
    };
    VerifiedResponse: {
      tokenType: 'Bearer';
      accessToken: string;
      expiresIn: number;
      refreshToken?: string;
      refreshExpiresIn: number;
      verified: true;
      deviceToken: string;
      user: components['schemas']['UserResponse'];
    };
    RefreshTokenRequest: { refreshToken?: string };
    TokensResponse: {
      tokenType: 'Bearer';
      accessToken: string;
      expiresIn: number;
      refreshToken?: string;
      refreshExpiresIn: number;
    };
    SessionsResponse: { sessions: components['schemas']['SessionResponse'][] };
    MeResponse: { id: string; phoneNumber: string; sessionId: string; authenticatedAt: string };
    Problem: {
      type: string;
      title: string;
      status: number;
      code:
        | 'validation_failed'
        | 'phone_number_rejected'
        | 'otp_incorrect'
        | 'unauthenticated'
        | 'not_logged_in'
        | 'refresh_token_invalid'
        | 'refresh_token_reused'
        | 'session_expired'
        | 'session_revoked'
        | 'origin_not_allowed'
        | 'not_found'
        | 'method_not_allowed'
        | 'idempotency_in_progress'
        | 'otp_expired'
        | 'otp_attempts_exhausted'
        | 'payload_too_large'
        | 'unsupported_media_type'
        | 'idempotency_key_reused'
        | 'challenge_required'
        | 'phone_locked'
        | 'rate_limited'
        | 'internal_error'
        | 'upstream_unavailable'
        | 'sms_unavailable'
        | 'store_unavailable'
        | 'overloaded'
        | 'upstream_timeout';
      detail: string;
      attemptsLeft?: number;
      retryAfterSeconds?: number;
      errors?: components['schemas']['FieldProblem'][];
      challenge?: { parameters?: { [other: string]: unknown }; signature?: string; [other: string]: unknown };
    };
    UserResponse: { id: string; phoneNumber: string };
    SessionResponse: {
      id: string;
      current: boolean;
      createdAt: string;
      lastUsedAt: string;
      expiresAt: string;
      device: string;
      deviceName?: string;
      address: string;
      apps?: components['schemas']['AppSessionResponse'][];
    };
    FieldProblem: { field: string; message: string };
    AppSessionResponse: {
      id: string;
      client: string;
      name: string;
      createdAt: string;
      lastUsedAt: string;
      expiresAt: string;
    };
  };
}
