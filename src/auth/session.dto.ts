import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsIn, IsString, ValidateIf } from 'class-validator';

export class RefreshTokenRequest {
  @ApiPropertyOptional({ nullable: true, description: 'Leave it out when the cookie carries the token.' })
  @ValidateIf((body: RefreshTokenRequest) => body.refreshToken !== undefined)
  @IsString()
  refreshToken?: string;
}

export class RefreshRequest extends RefreshTokenRequest {
  @ApiPropertyOptional({
    nullable: true,
    description:
      'The `aud` of the new access token, one of RESOURCE_AUDIENCES (RFC 8707). Default: AUDIENCE.',
    example: null,
  })
  @ValidateIf((body: RefreshRequest) => body.resource !== undefined)
  @IsString()
  resource?: string;
}

/** Without `resource`: an example with an unknown one would be refused. */
export const REFRESH_EXAMPLES = { 'A login': { value: { refreshToken: 'the refreshToken of a login' } } };

export class EndSessionsQuery {
  @ApiPropertyOptional({
    enum: ['true', 'false'],
    description: '`true` keeps the session of the call itself.',
  })
  @ValidateIf((query: EndSessionsQuery) => query.others !== undefined)
  @IsIn(['true', 'false'])
  others?: 'true' | 'false';
}

export class TokensResponse {
  @ApiProperty({ enum: ['Bearer'], example: 'Bearer' })
  tokenType!: 'Bearer';

  @ApiProperty({
    description: 'A JWT (RFC 9068), verified by the keys of `/.well-known/jwks.json`.',
    example: 'eyJ…',
  })
  accessToken!: string;

  @ApiProperty({ type: 'integer', description: 'Seconds until the access token expires.', example: 600 })
  expiresIn!: number;

  @ApiPropertyOptional({ description: 'Opaque. Not there when a cookie carries it.' })
  refreshToken?: string;

  @ApiProperty({ type: 'integer', description: 'Seconds until the refresh token expires.', example: 604800 })
  refreshExpiresIn!: number;
}

export class AppSessionResponse {
  @ApiProperty({
    description: '`sid` of its access tokens. It ends by `DELETE /auth/sessions/{id}`.',
    example: 'Zf3v0x5QW8mJkq1pY7nRtA',
  })
  id!: string;

  @ApiProperty({ description: 'The id of the app in OAUTH_CLIENTS.', example: 'shop' })
  client!: string;

  @ApiProperty({ description: 'The name of the app.', example: 'Shop' })
  name!: string;

  @ApiProperty({ format: 'date-time', example: '2026-11-21T10:00:50.000Z' })
  createdAt!: string;

  @ApiProperty({ format: 'date-time', example: '2026-11-21T10:10:12.000Z' })
  lastUsedAt!: string;

  @ApiProperty({ format: 'date-time', example: '2026-11-28T10:10:12.000Z' })
  expiresAt!: string;
}

export class SessionResponse {
  @ApiProperty({ description: '`sid` of its access tokens.', example: 'Y7nRtAxB2c4D6e8FmJkq1p' })
  id!: string;

  @ApiProperty({ description: 'Whether it is the session of this call.', example: true })
  current!: boolean;

  @ApiProperty({ format: 'date-time', example: '2026-11-21T10:00:42.000Z' })
  createdAt!: string;

  @ApiProperty({ format: 'date-time', example: '2026-11-21T10:10:12.000Z' })
  lastUsedAt!: string;

  @ApiProperty({ format: 'date-time', example: '2026-11-28T10:10:12.000Z' })
  expiresAt!: string;

  @ApiProperty({ maxLength: 40, example: 'Chrome on Android' })
  device!: string;

  @ApiPropertyOptional({ maxLength: 40, description: 'The `deviceName` of its login.', example: 'Pixel 9' })
  deviceName?: string;

  @ApiProperty({ description: 'Cut to /24 or /48.', example: '203.0.113.0/24' })
  address!: string;

  @ApiPropertyOptional({
    type: [AppSessionResponse],
    description: 'The apps that the user logged in to by it. They end with it.',
  })
  apps?: AppSessionResponse[];
}

export class SessionsResponse {
  @ApiProperty({ type: [SessionResponse] })
  sessions!: SessionResponse[];
}
