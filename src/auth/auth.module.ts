import { Module } from '@nestjs/common';
import { OtpModule } from '../otp/otp.module';
import { SessionsModule } from '../sessions/sessions.module';
import { ThrottlingModule } from '../throttling/throttling.module';
import { TokensModule } from '../tokens/tokens.module';
import { AuthController } from './auth.controller';
import { RefreshCookie } from './refresh-cookie';
import { SessionsController } from './sessions.controller';

/** Issues a JWT once verification succeeds, and says whose it is. */
@Module({
  imports: [OtpModule, SessionsModule, ThrottlingModule, TokensModule],
  providers: [RefreshCookie],
  controllers: [AuthController, SessionsController],
})
export class AuthModule {}
