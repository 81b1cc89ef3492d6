/** Ends what the global setup started. */
export default async function stopServers(): Promise<void> {
  await Promise.all((globalThis.redisOfWorkers ?? []).map((server) => server.stop()));
}
