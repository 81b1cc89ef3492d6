// The part of Cloudflare's runtime that the Worker uses.

interface DurableObjectStorage {
  sql: { exec(query: string, ...values: unknown[]): { toArray(): Record<string, unknown>[] } };
  setAlarm(time: number): Promise<void>;
  deleteAll(): Promise<void>;
}

declare module 'cloudflare:workers' {
  export class DurableObject {
    readonly ctx: { readonly storage: DurableObjectStorage };
  }
}
