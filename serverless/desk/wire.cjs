// Replaces the native part of aws-lambda-ric, which its install script would compile for a minute: the same three calls of the
// Lambda Runtime API over node:http. `node --require wire.cjs node_modules/aws-lambda-ric/index.mjs file.handler`
const http = require('node:http');
const Module = require('node:module');

const [hostname, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
// The clocks of two instances differ by this much.
const skewMs = Number(process.env.DESK_SKEW_MS ?? 0);
if (skewMs !== 0) {
  const now = Date.now;
  Date.now = () => now() + skewMs;
}

function call(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { hostname, port, method, path: `/2018-06-01/runtime${path}`, headers };
    const request = http.request(options, (response) => {
      let bodyJson = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => (bodyJson += chunk));
      response.on('end', () => resolve({ bodyJson, headers: response.headers }));
    });
    request.on('error', reject).end(body);
  });
}

let answered = Promise.resolve();
const client = {
  initializeClient() {},
  next: () => answered.then(() => call('GET', '/invocation/next')),
  done: (id, body) => {
    answered = call('POST', `/invocation/${id}/response`, body);
  },
  error: (id, body, xray) => {
    const headers = {
      'Lambda-Runtime-Function-Error-Type': JSON.parse(body).errorType,
      'Lambda-Runtime-Function-XRay-Error-Cause': xray,
    };
    answered = call('POST', `/invocation/${id}/error`, body, headers);
  },
};

const load = Module._load;
Module._load = function (request, ...rest) {
  return request.endsWith('rapid-client.node') ? client : load.call(this, request, ...rest);
};
