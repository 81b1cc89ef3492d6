import type { HttpService } from '@nestjs/axios';
import { firstValueFrom } from 'rxjs';
import type { Connections } from './connection';
import { type Answer, NeverSent } from './exchange';
import { type UpstreamResponse, isSuccess } from './responses';
import { readJson } from './read-json';

const LARGEST_REQUEST = 8_192;

/** A call without an answer that we could read. `unreachable`: the request certainly never left. */
export interface NoResponse {
  failure: 'unreachable' | 'failed' | 'timed_out';
  status?: number;
}

export interface HttpRequest {
  method: 'GET' | 'POST';
  /** From the root of the server. */
  path: string;
  headers: Record<string, string>;
  /** Sent as JSON; a GET has none. */
  body?: object | undefined;
  /** See {@link Connections}. */
  keep: boolean;
}

const decoder = new TextDecoder();

/**
 * Makes one HTTP call and never throws: what axios would throw carries the API key and the request's body. axios calls our
 * own adapter, which follows no redirect, knows no proxy and unpacks nothing.
 *
 * @param timeoutMs bounds the whole call, from the connection to the last byte of the answer
 */
export async function callHttp(
  http: HttpService,
  connections: Connections,
  { method, path, headers, body, keep }: HttpRequest,
  timeoutMs: number,
): Promise<UpstreamResponse | NoResponse> {
  const text = body && JSON.stringify(body);
  if (text !== undefined && Buffer.byteLength(text) > LARGEST_REQUEST) return { failure: 'failed' };
  const call = { timedOut: false, cancel: (): void => undefined };
  const timer = setTimeout(() => {
    call.timedOut = true;
    call.cancel();
  }, timeoutMs);
  // Unpacked, little becomes much: zstd may ask for 128 MB before the first byte, and an upstream that packs its answer all
  // the same is not read.
  const exchange = { method, path, headers: { ...headers, 'Accept-Encoding': 'identity' }, body: text, keep };
  try {
    const { data: answer } = await firstValueFrom(
      http.request<Answer>({
        method,
        url: path,
        headers: exchange.headers,
        data: text,
        transformRequest: [],
        transformResponse: [],
        adapter: async (config) => {
          const data = await connections.call(exchange, (end) => {
            call.cancel = end;
            // It ended between two steps.
            if (call.timedOut) end();
          });
          return { data, status: data.status, statusText: '', headers: {}, config };
        },
      }),
    );
    const { status } = answer;
    const retryAfter = answer.headers['retry-after'];
    if (answer.body !== undefined && isPlain(answer.headers['content-encoding']))
      return { status, retryAfter, body: readJson(decoder.decode(answer.body)) };
    // Where the body decides, half of one decides nothing.
    if (isSuccess(status) || status === 400 || status === 422)
      return { failure: call.timedOut ? 'timed_out' : 'failed', status };
    return { status, retryAfter, body: undefined };
  } catch (error) {
    if (error instanceof NeverSent) return { failure: 'unreachable' };
    return { failure: call.timedOut ? 'timed_out' : 'failed' };
  } finally {
    clearTimeout(timer);
  }
}

function isPlain(encoding: unknown): boolean {
  return encoding === undefined || (typeof encoding === 'string' && /^identity$/i.test(encoding));
}
