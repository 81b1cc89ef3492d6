import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { Config } from '../config/config';
import { isLoopback } from '../net/addresses';

const description = (
  inbox: string | undefined,
): string => `Log in with a phone number: a code goes out by SMS, the code comes back, a JWT goes out.

Try it on this page:

1. Open \`POST /auth/send-otp\` and press **Execute**: in the demo, the example works as it stands. Elsewhere a real SMS
   goes out, so put in a number of your own. Copy the \`requestId\` from the answer.
2. Read the code ${inbox === undefined ? 'on the phone' : `in the [phone inbox](${inbox})`}.
3. Open \`POST /auth/verify-otp\`, put in the \`requestId\` and the code, press **Execute**, and copy the \`accessToken\`.
4. Press **Authorize**, paste the access token, and execute \`GET /auth/me\`: it returns your user.

Errors are \`application/problem+json\` (RFC 9457); decide by their \`code\`. Every 429 and 503 says in \`Retry-After\`,
in seconds, when to come back.`;

/** The page of the emulator, where it stands in for StartMessaging: on this machine. */
function phoneInbox(startMessagingBaseUrl: string): string | undefined {
  const { hostname, origin } = new URL(startMessagingBaseUrl);
  return isLoopback(hostname) ? origin.replace('//127.0.0.1', '//localhost') : undefined;
}

/** Serves Swagger UI at /docs and the OpenAPI document at /docs-json. */
export function serveOpenApi(app: NestFastifyApplication): void {
  const { phoneInboxUrl, startMessagingBaseUrl } = app.get(Config);
  const inbox = phoneInboxUrl ?? phoneInbox(startMessagingBaseUrl);
  const config = new DocumentBuilder()
    .setTitle('otp-login')
    .setDescription(description(inbox))
    .setVersion('0.1.0')
    .setLicense('MIT', 'https://opensource.org/license/mit')
    .addServer('/', 'This instance')
    .addTag('Log in', 'Phone in, code out, code in, JWT out.')
    .addTag('Stay logged in', 'Refresh, see where you are logged in, log out.')
    .addTag('Verify tokens', 'Routes for resource servers.')
    .addTag('OAuth 2.0', 'The same for clients that speak the standards.')
    .addTag('Operate', 'Probes; and for the operators of ADMIN_TOKENS, figures and blocks.')
    .addBearerAuth({
      type: 'http',
      scheme: 'bearer',
      bearerFormat: 'JWT',
      description: 'The `accessToken` that verify-otp answered, without the word Bearer.',
    })
    .addBearerAuth(
      { type: 'http', scheme: 'bearer', description: 'An operator’s token of ADMIN_TOKENS.' },
      'admin',
    )
    .addBasicAuth({ type: 'http', scheme: 'basic', description: 'A client of INTROSPECTION_CLIENTS.' })
    .build();
  const document = SwaggerModule.createDocument(app, config);
  SwaggerModule.setup('docs', app, document, {
    jsonDocumentUrl: 'docs-json',
    yamlDocumentUrl: 'docs-yaml',
    customSiteTitle: 'otp-login',
    swaggerOptions: {
      displayRequestDuration: true,
      tryItOutEnabled: true,
      // The list of schemas is folded: each stands with the operation that uses it.
      defaultModelsExpandDepth: 0,
    },
  });
}
