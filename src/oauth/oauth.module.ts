import { Module } from '@nestjs/common';
import { SessionsModule } from '../sessions/sessions.module';
import { ThrottlingModule } from '../throttling/throttling.module';
import { TokensModule } from '../tokens/tokens.module';
import { ClientAuthentication } from './client-authentication';
import { FailedClients } from './failed-clients';
import { MetadataController } from './metadata.controller';
import { OAuthController } from './oauth.controller';
import { RevocationsController } from './revocations.controller';

/** The HTTP face that standards define: token, introspection, revocation, metadata, and the feed beside them. */
@Module({
  imports: [SessionsModule, ThrottlingModule, TokensModule],
  providers: [ClientAuthentication, FailedClients],
  controllers: [OAuthController, MetadataController, RevocationsController],
})
export class OAuthModule {}
