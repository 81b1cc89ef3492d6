#!/usr/bin/env bash
# @fastify/aws-lambda 6.4.1 (fastify 5.6.1): a query value that contains an escaped comma reaches the handler as two values.
#
# Expected: `?name=Rao%2C+Anita` reaches the handler as one string, "Rao, Anita". The client escaped the comma, so that it is data
#           (RFC 3986 section 2.2). The event of payload format 2.0 carries the query as the client wrote it in `rawQueryString`.
# Seen:     The adapter ignores `rawQueryString`. It splits the decoded `queryStringParameters` at each comma, and the handler receives the
#           array ["Rao", " Anita"]. A handler that expects a string then fails or compares the wrong value. The option
#           `parseCommaSeparatedQueryParams: false` keeps the value whole, but then `?id=1&id=2` is the one string "1,2".
#
# Prints what the handler receives in each case. Exits with 0 while the adapter behaves so, and with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true, "type": "module" }' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts fastify@5.6.1 @fastify/aws-lambda@6.4.1

cat > main.js <<'JS'
import lambda from '@fastify/aws-lambda';
import fastify from 'fastify';

// An event as API Gateway and a Function URL send it: repeated names are joined by a comma in queryStringParameters.
const event = (rawQueryString) => ({
  version: '2.0',
  rawPath: '/people',
  rawQueryString,
  queryStringParameters: Object.fromEntries(
    [...new Set(new URLSearchParams(rawQueryString).keys())].map((name) => [
      name,
      new URLSearchParams(rawQueryString).getAll(name).join(','),
    ]),
  ),
  headers: { host: 'api.example' },
  requestContext: { http: { method: 'GET', path: '/people' } },
  isBase64Encoded: false,
});
const seen = {};
for (const [options, name] of [[{}, 'default'], [{ parseCommaSeparatedQueryParams: false }, 'option off']]) {
  const app = fastify();
  app.get('/people', (request) => request.query);
  const handler = lambda(app, options);
  for (const query of ['name=Rao%2C+Anita', 'id=1&id=2']) {
    const { body } = await handler(event(query), {});
    seen[`${name} ?${query}`] = body;
    console.log(`${name.padEnd(10)}  ?${query.padEnd(18)} ${body}`);
  }
}
process.exitCode = seen['default ?name=Rao%2C+Anita'] === '{"name":["Rao"," Anita"]}'
  && seen['option off ?id=1&id=2'] === '{"id":"1,2"}' ? 0 : 1;
JS
node main.js
