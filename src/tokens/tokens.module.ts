import { Module } from '@nestjs/common';
import { JwtModule } from '@nestjs/jwt';
import { Config } from '../config/config';
import { SessionsModule } from '../sessions/sessions.module';
import { AccessTokens } from './access-tokens';
import { IdTokens } from './id-tokens';
import { JwksController } from './jwks.controller';
import { KeyAudit } from './key-audit';
import { RefreshTokens } from './refresh-tokens';
import { SigningKeyGauges } from './signing-key-gauges';
import { SigningKeys } from './signing-keys';
import { TokensService } from './tokens.service';

// RefreshTokens knows nothing of Nest: the serverless edition makes the same tokens.
const REFRESH_TOKENS = {
  provide: RefreshTokens,
  inject: [Config],
  useFactory: (config: Config) => new RefreshTokens(config),
};

/** Access tokens, the keys that sign them, and the JWKS that others verify them by. */
@Module({
  imports: [JwtModule.register({}), SessionsModule],
  providers: [SigningKeys, SigningKeyGauges, KeyAudit, AccessTokens, IdTokens, TokensService, REFRESH_TOKENS],
  controllers: [JwksController],
  exports: [AccessTokens, IdTokens, RefreshTokens, TokensService],
})
export class TokensModule {}
