import { Module, type DynamicModule } from '@nestjs/common';
import { RefreshCookie } from '../http/refresh-cookie';
import { PagesModule } from '../pages/pages.module';
import { SessionsModule } from '../sessions/sessions.module';
import { ThrottlingModule } from '../throttling/throttling.module';
import { TokensModule } from '../tokens/tokens.module';
import { AuthorizeController } from './authorize.controller';
import { ClientAuthentication } from './client-authentication';
import { FailedClients } from './failed-clients';
import { LogoutController } from './logout.controller';
import { MetadataController } from './metadata.controller';
import { OAuthClients } from './oauth-clients';
import { OAuthController } from './oauth.controller';
import { RevocationsController } from './revocations.controller';
import { TokenGrants } from './token-grants';
import { UserinfoController } from './userinfo.controller';

/** The HTTP face that standards define: token, introspection, revocation, metadata, and the feed beside them. */
@Module({})
export class OAuthModule {
  /** @param hosted whether apps log their users in here: without clients, their routes do not exist */
  static register(hosted: boolean): DynamicModule {
    return {
      module: OAuthModule,
      imports: [SessionsModule, ThrottlingModule, TokensModule, ...(hosted ? [PagesModule] : [])],
      providers: [ClientAuthentication, FailedClients, OAuthClients, RefreshCookie, TokenGrants],
      controllers: [
        ...[OAuthController, MetadataController, RevocationsController],
        ...(hosted ? [AuthorizeController, UserinfoController, LogoutController] : []),
      ],
    };
  }
}
