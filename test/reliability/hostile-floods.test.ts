import v8 from 'node:v8';
import vm from 'node:vm';
import { gzipSync } from 'node:zlib';
import type { StartMessagingClient } from '../../src/startmessaging/startmessaging.client';
import { until } from '../support/hang';
import {
  chunk,
  CHUNKED,
  head,
  packed,
  padded,
  patientClient,
  RIGHT,
  verify,
  writes,
  WRONG,
  type Respond,
} from '../support/hostile-client';
import { pour, rawAnswer, startRawUpstream } from '../support/raw-upstream';
import { full } from '../support/scale';

/** How much memory the process holds after its garbage was collected. */
function memory(): number {
  v8.setFlagsFromString('--expose-gc');
  (vm.runInNewContext('gc') as () => void)();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

it('memory and connections of the StartMessaging client come back after thousands of hostile responses', async () => {
  const floods: Respond[] = [
    writes(rawAnswer(RIGHT)),
    packed(gzipSync(padded(5_000_000)), 'gzip'),
    (socket) => {
      socket.write(head({}));
      pour(socket, padded(16_000));
    },
    (socket) => {
      pour(socket, head({}, '103 Early Hints').repeat(500));
    },
    (socket) => {
      socket.write(`${CHUNKED}${chunk(RIGHT)}0\r\n`);
      pour(socket, 'x: y\r\n'.repeat(500));
    },
    writes('not HTTP\r\n\r\n'),
    writes(Buffer.concat([rawAnswer(WRONG), rawAnswer(RIGHT)])),
    (socket) => socket.resetAndDestroy(),
    (socket) => socket.end(head({ 'Content-Length': '99' }) + RIGHT),
  ];
  /** Few, and all at once: each lasts until the timeout of its call. */
  const ENDLESS_A_ROUND = 12;
  const endless: Respond[] = [
    writes(head({ Connection: 'Upgrade', Upgrade: 'x' }, '101 Switching Protocols')),
    () => undefined,
  ];
  let turn = 0;
  const upstream = await startRawUpstream((socket, request) => {
    const answers = turn < ENDLESS_A_ROUND ? endless : floods;
    answers[turn % answers.length]?.(socket, request);
    turn += 1;
  });
  const { url, open, seen } = upstream;
  const newClient = (): StartMessagingClient => patientClient(url, { timeoutMs: 5_000 });
  let client = newClient();
  /** Such answers open the breaker sooner or later: then a new client asks. */
  const ask = async (): Promise<void> => {
    const asked = client;
    if ((await verify(asked)) !== 'breaker_open') return;
    if (client === asked) client = newClient();
    await ask();
  };
  // The `process` of Jest is a copy that hears no warning.
  const { process: real } = vm.runInThisContext('({ process })') as { process: NodeJS.Process };
  const warnings: string[] = [];
  const heard = (warning: Error): void => void warnings.push(String(warning));
  real.on('warning', heard);
  const sockets = (): number =>
    real.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
  const round = async (calls: number): Promise<void> => {
    turn = 0;
    const work = async (): Promise<void> => {
      for (let i = 0; i < calls / 40; i++) await ask();
    };
    await Promise.all(Array.from({ length: 40 }, work));
  };
  try {
    await round(400);
    await until(() => open.size === 0, 'the end of every connection');
    const [memoryBefore, socketsBefore] = [memory(), sockets()];
    const calls = full ? 6_000 : 1_200;
    await round(calls);
    await until(() => open.size === 0 && sockets() <= socketsBefore, 'the end of every socket');
    // On a slow machine the client gives some up before they arrive.
    expect(seen.requests).toBeGreaterThan((400 + calls) / 2);
    // Noise is under half a megabyte; 4 KB kept of every answer that is read would be two, and a body of each 30.
    // Node.js 24 frees some of it only after further turns of the event loop.
    await until(() => memory() - memoryBefore < 1_500_000, 'the memory of before');
    expect(warnings).toEqual([]);
  } finally {
    real.off('warning', heard);
    await upstream.close();
  }
});
