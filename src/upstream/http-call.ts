import type { Agent, ClientRequest } from 'node:http';
import type { Readable } from 'node:stream';
import type { HttpService } from '@nestjs/axios';
import { firstValueFrom } from 'rxjs';
import { type UpstreamResponse, isSuccess } from './responses';
import { neverConnected, wasFlooded } from './connection';
import { readJson } from './read-json';

const LARGEST_ANSWER = 65_536;
const LARGEST_REQUEST = 8_192;

/** A call without an answer that we could read. `unreachable`: the request certainly never left. */
export interface NoResponse {
  failure: 'unreachable' | 'failed' | 'timed_out';
  status?: number;
}

export interface HttpRequest {
  method: 'GET' | 'POST';
  url: string;
  headers: Record<string, string>;
  /** Sent as JSON; a GET has none. */
  body?: object | undefined;
}

/**
 * Makes one HTTP call and never throws: what axios would throw carries the API key and the request's body.
 *
 * @param timeoutMs bounds the whole call, the last byte of the answer included. axios's own `timeout` is for
 *   idle sockets: an answer that trickles in outlives it.
 */
export async function callHttp(
  http: HttpService,
  agent: Agent,
  { method, url, headers, body }: HttpRequest,
  timeoutMs: number,
): Promise<UpstreamResponse | NoResponse> {
  const timeout = new AbortController();
  const timer = setTimeout(() => {
    timeout.abort();
  }, timeoutMs);
  const failureOf = (error: unknown): NoResponse['failure'] => {
    if (neverConnected((error as { request?: unknown } | null)?.request)) return 'unreachable';
    return timeout.signal.aborted ? 'timed_out' : 'failed';
  };
  try {
    const response = await firstValueFrom(
      http.request<Readable>({
        method,
        url,
        // Unpacked, little becomes much: zstd may ask for 128 MB before the first byte, and an upstream that packs its answer
        // all the same is not read.
        headers: { ...headers, 'Accept-Encoding': 'identity' },
        decompress: false,
        data: body,
        adapter: 'http', // the only one that uses the agent, which tells us what never left
        httpAgent: agent,
        httpsAgent: agent,
        maxRedirects: 0,
        proxy: false,
        validateStatus: () => true,
        // A stream, so that the status is known even when the body is broken or too large: a 401 is a 401.
        responseType: 'stream',
        transformResponse: [(data: unknown) => data],
        maxContentLength: LARGEST_ANSWER,
        maxBodyLength: LARGEST_REQUEST,
        signal: timeout.signal,
      }),
    );
    const { status } = response;
    try {
      const answer = await readBody(response.data, response.headers['content-encoding']);
      if (wasFlooded(response.request)) throw new Error('answer too large');
      return { status, retryAfter: response.headers['retry-after'], body: answer };
    } catch (error) {
      // An unread body would keep its connection.
      (response.request as ClientRequest).destroy();
      // Where the body decides, half of one decides nothing.
      if (isSuccess(status) || status === 400 || status === 422) return { failure: failureOf(error), status };
      return { status, retryAfter: response.headers['retry-after'], body: undefined };
    }
  } catch (error) {
    return { failure: failureOf(error) };
  } finally {
    clearTimeout(timer);
  }
}

async function readBody(stream: Readable, encoding: unknown): Promise<unknown> {
  const plain = encoding === undefined || (typeof encoding === 'string' && /^identity$/i.test(encoding));
  if (!plain) throw new Error('answer is packed');
  const chunks: Buffer[] = [];
  for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
  return readJson(new TextDecoder().decode(Buffer.concat(chunks)));
}
