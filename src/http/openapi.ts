import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';

const DESCRIPTION = `Log in with a phone number: a code goes out by SMS, the code comes back, a JWT goes out.

1. \`POST /auth/send-otp\` with the phone number. Keep the \`requestId\`.
2. \`POST /auth/verify-otp\` with the \`requestId\` and the code from the SMS. Keep the \`accessToken\`.
3. Click **Authorize**, paste the access token, and call \`GET /auth/me\`.

In the demo, the SMS arrive in the [phone inbox](http://localhost:3001).

Errors are \`application/problem+json\` (RFC 9457); decide by their \`code\`. Every 429 and 503 says in \`Retry-After\`,
in seconds, when to come back.`;

/** Serves Swagger UI at /docs and the OpenAPI document at /docs-json. */
export function serveOpenApi(app: NestFastifyApplication): void {
  const config = new DocumentBuilder()
    .setTitle('otp-login')
    .setDescription(DESCRIPTION)
    .setVersion('0.1.0')
    .setLicense('MIT', 'https://opensource.org/license/mit')
    .addServer('/')
    .addTag('Log in', 'Phone in, code out, code in, JWT out.')
    .addTag('Verify tokens', 'What a resource server needs.')
    .addTag('Operate', 'Probes.')
    .addBearerAuth({ type: 'http', scheme: 'bearer', bearerFormat: 'JWT' })
    .build();
  const document = SwaggerModule.createDocument(app, config);
  SwaggerModule.setup('docs', app, document, {
    jsonDocumentUrl: 'docs-json',
    yamlDocumentUrl: 'docs-yaml',
    customSiteTitle: 'otp-login',
    swaggerOptions: { persistAuthorization: true, displayRequestDuration: true, tryItOutEnabled: true },
  });
}
