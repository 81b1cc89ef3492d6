import type { Call, Challenge, Solver } from './types.js';

const enum Ms {
  GiveUp = 60_000,
}

const bytes = (hex: string): Uint8Array<ArrayBuffer> =>
  new Uint8Array(hex.match(/../g)!.map((pair) => parseInt(pair, 16)));

/**
 * Tries the counters `first`, `first + step`, … until one gives a key with the wanted prefix. Answers the text for the field
 * `altcha`. Rejects where the browser has no WebCrypto (a page over plain HTTP), after 60 s, and for an algorithm that it does
 * not know; the client then throws `challenge_unsolved`.
 *
 * @example
 * const altcha = await solve(challenge, { signal });
 */
export async function solve(
  challenge: Challenge,
  { signal, first = 0, step = 1 }: Call & { first?: number; step?: number } = {},
): Promise<string> {
  const { algorithm, nonce, salt, cost, keyLength, keyPrefix } = challenge.parameters;
  const [name, hash] = algorithm.split('/');
  const { subtle } = crypto;
  const end = Date.now() + Ms.GiveUp;
  let answer = '';
  const lane = async (): Promise<void> => {
    while (!answer) {
      if (signal?.aborted || Date.now() > end) throw Error();
      const counter = first;
      first += step;
      // The counter as 32 bits, big-endian.
      const password = bytes(nonce + counter.toString(16).padStart(8, '0'));
      const key = await subtle.importKey('raw', password, name!, false, ['deriveBits']);
      const parameters = { name: name!, hash, salt: bytes(salt), iterations: cost };
      const bits = new Uint8Array(await subtle.deriveBits(parameters, key, keyLength * 8));
      const derivedKey = Array.from(bits, (byte) => (byte + 256).toString(16).slice(1)).join('');
      if (derivedKey.startsWith(keyPrefix)) {
        answer = btoa(JSON.stringify({ challenge, solution: { counter, derivedKey } }));
      }
    }
  };
  // More parallel calls of WebCrypto do not help, and fewer leave its threads idle.
  await Promise.all([lane(), lane(), lane(), lane()]);
  return answer;
}

/**
 * A solver. With `worker` it uses two workers, which keeps slow pages smooth; without it works on the page's own thread.
 *
 * @example
 * const worker = () => new Worker(new URL('@otp-login/client/pow-worker', import.meta.url), { type: 'module' });
 * const client = createOtpLogin({ url, solve: createSolver({ worker }) });
 */
export function createSolver({ worker }: { worker?: () => Worker } = {}): Solver {
  if (!worker) return solve;
  return (challenge, { signal }) => {
    const workers = [worker(), worker()];
    return new Promise<string>((resolve, reject) => {
      signal?.addEventListener('abort', reject);
      workers.forEach((one, first) => {
        one.onmessage = ({ data }) => resolve(data);
        one.onerror = reject;
        one.postMessage({ challenge, first, step: 2 });
      });
    }).finally(() => workers.forEach((one) => one.terminate()));
  };
}
