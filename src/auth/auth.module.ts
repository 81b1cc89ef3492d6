import { Module } from '@nestjs/common';
import { Config } from '../config/config';
import { DevicesModule } from '../devices/devices.module';
import { OtpModule } from '../otp/otp.module';
import { SessionsModule } from '../sessions/sessions.module';
import { ThrottlingModule } from '../throttling/throttling.module';
import { TokensModule } from '../tokens/tokens.module';
import { AccountService } from './account.service';
import { AuthController } from './auth.controller';
import { DeviceCookie } from './device-cookie';
import { LoginService } from './login.service';
import { OtpResponses } from './otp-responses';
import { RefreshCookie } from '../http/refresh-cookie';
import { SessionsController } from './sessions.controller';

// OtpResponses knows nothing of Nest: the serverless edition answers the same.
const OTP_RESPONSES = {
  provide: OtpResponses,
  inject: [Config],
  useFactory: (config: Config) => new OtpResponses(config),
};

/** Issues a JWT after a successful verification, and returns the user of a JWT. */
@Module({
  imports: [DevicesModule, OtpModule, SessionsModule, ThrottlingModule, TokensModule],
  providers: [AccountService, DeviceCookie, LoginService, RefreshCookie, OTP_RESPONSES],
  controllers: [AuthController, SessionsController],
})
export class AuthModule {}
