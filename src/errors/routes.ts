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
    const path = url.replace(/[?#].*$/s, '');
    const methods = this.#routes
      .filter(({ pattern }) => pattern.test(path))
      .flatMap((route) => route.methods);
    return [...new Set(methods)].sort();
  }
}
