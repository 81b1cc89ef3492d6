/** The folder of the compiled service. */
export const COMPILED: string;
/** Options of @swc/jest and @swc/core. */
export const SWC: object;
export function compileService(): void;
