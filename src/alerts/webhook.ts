import { createHmac, randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { HttpService } from '@nestjs/axios';
import { Injectable } from '@nestjs/common';
import { ExponentialBackoff, handleAll, retry } from 'cockatiel';
import { firstValueFrom } from 'rxjs';
import { Config } from '../config/config';
import { Logger } from '../logging/logger';

/** Six calls in all. */
const MOST_REPEATS = 5;

/**
 * Posts events to a receiver, signed as Standard Webhooks (standardwebhooks.com) demands: HMAC-SHA-256 over id, timestamp and
 * body, by each secret of the list.
 */
@Injectable()
export class Webhook {
  /** The time of one call, with the head of its answer. */
  deadlineMs = 5_000;
  /** With the calls between them, less than six minutes. */
  readonly pauses = { initialDelay: 1_000, exponent: 3, maxDelay: 60_000 };

  constructor(
    private readonly http: HttpService,
    private readonly config: Config,
    private readonly logger: Logger,
  ) {}

  /**
   * Whether the receiver answered with a 2xx, after some tries under one id. Never throws. Every try is signed anew, so that
   * the receiver may refuse an event older than a few minutes: an attacker may have seen it and may send it again.
   */
  async deliver(url: string, event: object, ending: AbortSignal): Promise<boolean> {
    const id = `msg_${randomUUID()}`;
    const body = JSON.stringify(event);
    const backoff = new ExponentialBackoff(this.pauses);
    // A pause of a minute must not keep a process that ends.
    const policy = retry(handleAll, { maxAttempts: MOST_REPEATS, backoff }).dangerouslyUnref();
    policy.onFailure(({ reason }) => {
      this.logger.warn('A webhook did not arrive', {
        webhook: id,
        fault: 'error' in reason ? reason.error.message : undefined,
      });
    });
    try {
      await policy.execute(() => this.post(url, id, body, ending), ending);
      return true;
    } catch {
      return false;
    }
  }

  /** Throws what may be logged: an axios error carries the URL, and with it perhaps a token of the receiver's. */
  private async post(url: string, id: string, body: string, ending: AbortSignal): Promise<void> {
    const timestamp = Math.floor(Date.now() / 1_000);
    const signatures = this.config.alertWebhookSecrets.map(
      (key) => `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`,
    );
    const call = this.http.post<Readable>(url, body, {
      headers: {
        'Content-Type': 'application/json',
        'User-Agent': 'otp-login',
        'webhook-id': id,
        'webhook-timestamp': String(timestamp),
        'webhook-signature': signatures.join(' '),
      },
      adapter: 'http',
      // A redirect would carry the event to another server.
      maxRedirects: 0,
      proxy: false,
      decompress: false,
      validateStatus: () => true,
      responseType: 'stream',
      transformRequest: [(data: unknown) => data],
      // The time of the whole call: axios's own `timeout` is for idle sockets, and a slow answer outlives it.
      signal: AbortSignal.any([ending, AbortSignal.timeout(this.deadlineMs)]),
    });
    let status: number;
    try {
      const response = await firstValueFrom(call);
      // The body is not read, because a body without an end would keep its connection.
      response.data.destroy();
      ({ status } = response);
    } catch (error) {
      const { code } = error as { code?: unknown };
      throw new Error(`no answer${typeof code === 'string' ? ` (${code})` : ''}`);
    }
    if (status < 200 || status > 299) throw new Error(`answered ${status}`);
  }
}
