// An API whose users log in at otp-login. It verifies access tokens by the keys of the service, without a call for each request.
import express from 'express';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const issuer = process.env.LOGIN_ISSUER ?? 'http://localhost:3000';
const keysUrl = new URL(`${process.env.LOGIN_URL ?? issuer}/.well-known/jwks.json`);
const keys = createRemoteJWKSet(keysUrl);

const app = express();

app.use(async (request, response, next) => {
  const [, token] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
  if (!token) return response.set('WWW-Authenticate', 'Bearer').sendStatus(401);
  try {
    // `typ` keeps other tokens of the same issuer out, and the list of algorithms a token that chose its own.
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience: process.env.LOGIN_AUDIENCE ?? 'otp-login',
      typ: 'at+jwt',
      algorithms: ['ES256'],
      clockTolerance: 5,
    });
    request.user = { id: payload.sub };
    next();
  } catch (error) {
    // The keys cannot be fetched: that is no fault of the token, and must log no user out.
    if (error.code === 'ERR_JWKS_TIMEOUT' || !error.code?.startsWith('ERR_J'))
      return response.sendStatus(503);
    response.set('WWW-Authenticate', 'Bearer error="invalid_token"').sendStatus(401);
  }
});

app.get('/orders', (request, response) => response.json({ user: request.user.id, orders: [] }));

const server = app.listen(process.env.PORT ?? 4000, () => console.log(`listens on ${server.address().port}`));
