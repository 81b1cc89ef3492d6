import type { Socket } from 'node:net';
import { HttpService } from '@nestjs/axios';
import {
  StartMessagingClient,
  type StartMessagingOptions,
} from '../../src/startmessaging/startmessaging.client';
import { UpstreamError } from '../../src/upstream/upstream.error';
import { HANG_MS } from './hang';
import { rawAnswer, type RawRequest } from './raw-upstream';

export const API_KEY = `sm_live_${'0123456789abcdef'.repeat(3).slice(0, 40)}`;
export const CODE = '739154';
export const RIGHT = '{"data":{"verified":true}}';
export const WRONG = '{"data":{"verified":false}}';

/** How an upstream of raw bytes answers. */
export type Respond = (socket: Socket, request: RawRequest) => void;

/** A client that makes one attempt, and waits for as long as only a hang takes. */
export const patientClient = (
  baseUrl: string,
  options: Partial<StartMessagingOptions> = {},
): StartMessagingClient =>
  new StartMessagingClient(new HttpService(), {
    baseUrl,
    apiKey: API_KEY,
    appName: 'otp-login',
    timeoutMs: HANG_MS,
    connectTimeoutMs: HANG_MS,
    retryDelayMs: 1,
    maxAttempts: 1,
    deadlineMs: HANG_MS,
    ...options,
  });

/** What a verification came to, in a word. */
export const verify = (client: StartMessagingClient): Promise<string> =>
  client.verifyOtp({ requestId: 'otp-req-1', code: CODE }).then(
    ({ verified }) => (verified ? 'right' : 'wrong'),
    (error: unknown) => {
      if (error instanceof UpstreamError) return error.reason;
      throw error;
    },
  );

export const writes =
  (...pieces: (string | Buffer)[]): Respond =>
  (socket) => {
    for (const piece of pieces) socket.write(piece, 'latin1');
  };
export const head = (headers: Record<string, string>, status = '200 OK'): string =>
  `HTTP/1.1 ${status}\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`;
export const CHUNKED = head({ 'Transfer-Encoding': 'chunked' });
export const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;
export const packed = (bytes: Buffer, encoding: string): Respond =>
  writes(rawAnswer(bytes, { headers: { 'Content-Encoding': encoding } }));
export const padded = (size: number): Buffer => Buffer.from(RIGHT + ' '.repeat(size));
