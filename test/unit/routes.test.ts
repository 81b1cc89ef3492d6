import { Routes } from '../../src/http/routes';
import { cpuSecondsOf, LINEAR_CPU_SECONDS } from '../support/cpu-time';

function routesOf(...added: [string, string | string[]][]): Routes {
  const routes = new Routes();
  for (const [url, methods] of added) routes.add(url, methods);
  return routes;
}

describe('Routes', () => {
  const routes = routesOf(
    ['/auth/send-otp', 'POST'],
    ['/auth/otp/:requestId', ['GET', 'HEAD']],
    ['/auth/sessions', 'GET'],
    ['/auth/sessions', 'DELETE'],
    ['/auth/sessions', 'GET'],
    ['/auth/sessions/:id', 'DELETE'],
    ['/.well-known/jwks.json', 'GET'],
    ['/docs/*', 'GET'],
    ['*', 'OPTIONS'],
  );

  test.each([
    ['/auth/send-otp', ['POST']],
    ['/auth/otp/abc', ['GET', 'HEAD']],
    ['/auth/otp/%zz', ['GET', 'HEAD']],
    ['/auth/sessions/1', ['DELETE']],
    ['/docs/', ['GET']],
    ['/docs/a/b.css', ['GET']],
  ])('the route table knows the methods of the path %s', (url, methods) => {
    expect(routes.methodsOf(url)).toEqual(methods);
  });

  test('the route table names each method of a path once, sorted', () => {
    expect(routes.methodsOf('/auth/sessions')).toEqual(['DELETE', 'GET']);
  });

  test.each([
    '/auth/send-otp?x=1',
    '/auth/send-otp?',
    '/auth/send-otp#x',
    '/auth/send-otp?a=/../..?#',
    '/auth/send-otp?a\nb',
  ])('the route table reads only the path of the URL %p', (url) => {
    expect(routes.methodsOf(url)).toEqual(['POST']);
  });

  test.each([
    '/',
    '',
    '*',
    '/auth',
    '/auth/',
    '/auth/send-otp/',
    '/auth/send-otp/more',
    '/AUTH/SEND-OTP',
    'x/auth/send-otp',
    '/auth/send-otpx',
    '/auth/otp/',
    '/auth/otp/a/b',
    '/auth/sessions/1/2',
    '?/auth/send-otp',
  ])('the route table knows no method of %p, the preflight of CORS included', (url) => {
    expect(routes.methodsOf(url)).toEqual([]);
  });

  test('the route table takes special characters of a route literally', () => {
    expect(routes.methodsOf('/.well-known/jwksXjson')).toEqual([]);
    expect(routes.methodsOf('/xwell-known/jwks.json')).toEqual([]);
    const odd = routesOf(
      ['/a+b', 'GET'],
      ['/c(d)', 'GET'],
      ['/e$', 'GET'],
      ['/f|g', 'GET'],
      ['/h[i]', 'GET'],
    );
    for (const url of ['/a+b', '/c(d)', '/e$', '/f|g', '/h[i]']) expect(odd.methodsOf(url)).toEqual(['GET']);
    for (const url of ['/aab', '/cd', '/e', '/f', 'g', '/hi']) expect(odd.methodsOf(url)).toEqual([]);
  });

  test('the route table reads a long hostile path in linear time', () => {
    const many = routesOf(['/:a/:b/:c/*', 'GET'], ['/docs/*', 'GET']);
    const cpuSeconds = cpuSecondsOf(() => {
      expect(many.methodsOf(`${'/docs'.repeat(600)}\n`)).toEqual([]);
    });
    expect(cpuSeconds).toBeLessThan(LINEAR_CPU_SECONDS);
  });
});
