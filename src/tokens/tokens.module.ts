import { Module } from '@nestjs/common';
import { JwtModule } from '@nestjs/jwt';
import { AccessTokens } from './access-tokens';
import { JwksController } from './jwks.controller';
import { SigningKeys } from './signing-keys';

/** Access tokens, the keys that sign them, and the JWKS that others verify them by. */
@Module({
  imports: [JwtModule.register({})],
  providers: [SigningKeys, AccessTokens],
  controllers: [JwksController],
  exports: [AccessTokens],
})
export class TokensModule {}
