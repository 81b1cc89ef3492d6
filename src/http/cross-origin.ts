import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyRequest } from 'fastify';
import type { Config } from '../config/config';
import type { Logger } from '../logging/logger';
import { pathOf } from './routes';

/** Strangers choose their `Origin`: without a bound they could fill the log and this process's memory. */
const MOST_LOGGED = 100;
/** Where the pages of registered redirect URIs may call. */
const OF_APPS = /^\/(?:oauth\/(?:token|userinfo)|\.well-known\/.+)$/;
const ORIGIN = /^(?:null|[a-z][a-z\d+.-]*:\/\/[!-~]{1,200})$/;

/**
 * Lets the pages of allowed origins call the service and read its responses (CORS). Each refused origin is logged once,
 * because the browser tells the page's developer only that the call failed.
 */
export function allowCrossOrigin(app: NestFastifyApplication, config: Config, logger: Logger): void {
  const logged = new Set<string>();
  const logRefused = (origin: string): void => {
    const shown = ORIGIN.test(origin) ? origin : 'not an origin';
    if (logged.has(shown) || logged.size > MOST_LOGGED) return;
    logged.add(shown);
    if (logged.size > MOST_LOGGED) {
      logger.warn(
        'Too many origins are refused: CORS_ORIGINS allows none of them, and no further one is logged',
      );
    } else {
      logger.warn('Origin refused: CORS_ORIGINS does not list it. Add it if the page is yours', {
        origin: shown,
      });
    }
  };
  const appOrigins = new Set(
    config.oauthClients.flatMap(({ redirectUris }) => redirectUris.map((uri) => new URL(uri).origin)),
  );
  const options = {
    credentials: true,
    // The library's own response to a preflight that asks for nothing would not be problem+json.
    strictPreflight: false,
    methods: ['GET', 'POST', 'DELETE'],
    // Tracing tools of the browser add the last three to every call.
    allowedHeaders: [
      'authorization',
      'content-type',
      'idempotency-key',
      'x-request-id',
      'traceparent',
      'tracestate',
    ],
    exposedHeaders: ['retry-after', 'x-request-id', 'date', 'www-authenticate'],
    maxAge: 600,
  };
  app.enableCors({
    delegator: (request: FastifyRequest, answer: (error: null, options: object) => void) => {
      const { origin } = request.headers;
      const allowed = origin !== undefined && config.allowsOrigin(origin);
      // An app in the browser exchanges its code and reads the keys. It gets no cookie, so it needs no credentials.
      const ofApp = !allowed && appOrigins.has(origin ?? '') && OF_APPS.test(pathOf(request));
      if (origin !== undefined && !allowed && !ofApp) logRefused(origin);
      answer(null, { ...options, origin: allowed || ofApp, credentials: !ofApp });
    },
  });
}
