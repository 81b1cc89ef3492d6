/** Options of @swc/jest and @swc/core. */
export const SWC: object;
/** Compiles the service before all tests. */
export function compileService(): void;
/** The folder of the compiled service. */
export function compiledService(): string;
