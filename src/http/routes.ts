import type { FastifyRequest } from 'fastify';

/**
 * The path of a request as the router understood it: its route's pattern, or where none matched the path without what
 * an absolute URL and percent-encoding add. `/%6Fauth/token` and `http://x/oauth/token` are `/oauth/token` to the
 * router, so a rule that looks at the raw URL does not hold for them.
 */
export function pathOf(request: FastifyRequest): string {
  const url = (request.routeOptions as { url?: string } | undefined)?.url;
  // `*` is the preflight of CORS, which answers for every path.
  return url === undefined || url === '*' ? normalPath(request.raw.url ?? '/') : url;
}

function normalPath(url: string): string {
  const path = url.replace(/^[a-z][a-z\d+.-]*:\/\/[^/?#]*/i, '').replace(/[?#].*$/s, '');
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** Which methods a path has, so that a wrong method is told apart from an unknown path. */
export class Routes {
  readonly #routes: { pattern: RegExp; methods: string[] }[] = [];

  /** Takes a route as Fastify reports it: `/auth/otp/:requestId`, `/docs/*`. */
  add(url: string, methods: string | string[]): void {
    // The preflight of CORS answers for every path, also for those that are not there.
    if (url === '*') return;
    const pattern = url
      .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
      .replace(/:\w+/g, '[^/]+')
      .replace(/\*/g, '.*');
    this.#routes.push({ pattern: new RegExp(`^${pattern}$`), methods: [methods].flat() });
  }

  methodsOf(url: string): string[] {
    const path = normalPath(url);
    const methods = this.#routes
      .filter(({ pattern }) => pattern.test(path))
      .flatMap((route) => route.methods);
    return [...new Set(methods)].sort();
  }
}
