import { Injectable } from '@nestjs/common';
import { InjectThrottlerStorage } from '@nestjs/throttler';
import type { FastifyRequest } from 'fastify';
import { ProofOfWork } from '../abuse/proof-of-work';
import { Config, type Limit } from '../config/config';
import { DeviceTokens } from '../devices/device-tokens';
import { ApiError } from '../errors/api-error';
import { ClientAddress } from '../http/client-address';
import { Metrics, startAtZero } from '../metrics/metrics';
import { originOf } from '../net/addresses';
import { PhoneIdentities } from '../phone-number/phone-identity';
import type { PhoneNumber } from '../phone-number/phone-number';
import { RedisThrottlerStorage, type Credential, type Place } from './redis-throttler-storage';

/** The buckets of an address: LIMIT_IP for sends, LIMIT_VERIFY_IP for verifications and, separately, for status calls. */
export type AddressLimit = 'send' | 'verify' | 'status';
type Bucket = AddressLimit | 'send-refused' | 'verify-refused' | 'client';

/** How many more requests the looser bucket holds. */
const LOOSER = 10;
/** Failed authentications of clients (INTROSPECTION_CLIENTS). Five minutes, so that a client with a corrected secret soon works. */
const FAILED_CLIENTS: readonly Limit[] = [{ count: 30, seconds: 300 }];
/** The routes with a looser limit for refused requests. */
const ROUTES: Readonly<Record<string, 'send' | 'verify'>> = {
  '/auth/send-otp': 'send',
  '/auth/verify-otp': 'verify',
};
const UNUSABLE = [400, 413, 415];

/** The parts of a send that can raise the limit of its address. */
export interface SendCredential {
  phone: PhoneNumber;
  deviceToken: string | undefined;
  solution: string | undefined;
}

/**
 * The limits per client address. All clients behind one address share them, so a request that can cost nothing must not
 * use them up: any web page can let its visitors post empty bodies here.
 */
@Injectable()
export class AddressLimits {
  private readonly limits: Readonly<Record<Bucket, readonly Limit[]>>;
  /** The requests that count, with their places; undefined for one that counts in the bucket of its challenge. */
  private readonly counted = new WeakMap<FastifyRequest, Place | undefined>();

  constructor(
    config: Config,
    @InjectThrottlerStorage() private readonly storage: RedisThrottlerStorage,
    private readonly clientAddress: ClientAddress,
    private readonly proofOfWork: ProofOfWork,
    private readonly devices: DeviceTokens,
    private readonly phones: PhoneIdentities,
    private readonly metrics: Metrics,
  ) {
    const looser = (limits: readonly Limit[]): Limit[] =>
      limits.map(({ count, seconds }) => ({ count: LOOSER * count, seconds }));
    this.limits = {
      send: config.limitIp,
      verify: config.limitVerifyIp,
      status: config.limitVerifyIp,
      'send-refused': looser(config.limitIp),
      'verify-refused': looser(config.limitVerifyIp),
      client: FAILED_CLIENTS,
    };
    const buckets = Object.keys(this.limits) as Bucket[];
    startAtZero(metrics.limitsHit, 'limit', buckets.map(labelOf));
    metrics.onScrape(async () => {
      for (const bucket of buckets) {
        const { exact, sharing } = await storage.counts(bucket, this.limits[bucket]);
        metrics.addresses.set({ limit: labelOf(bucket), counted: 'exactly' }, exact);
        metrics.addresses.set({ limit: labelOf(bucket), counted: 'shared' }, sharing);
      }
    });
  }

  /**
   * Counts a send with a valid body. A device token of the number, or a solved proof of work, raises the limit to
   * three times its value. Throws `rate_limited`, with a challenge if its solution would raise the limit far enough.
   */
  async admitSend(request: FastifyRequest, { phone, deviceToken, solution }: SendCredential): Promise<void> {
    const origin = originOf(this.clientAddress.of(request));
    const device = this.devices.read(deviceToken, this.phones.pseudonymOf(phone)) !== undefined;
    const refusal = await this.count(request, 'send', { device });
    if (refusal === undefined) return;
    if (!refusal.raisable) throw this.refused('send', refusal.waitMs);
    // Looked at only when it matters: a check costs a millisecond of CPU, and a stranger could send a thousand of them.
    const work = solution && (await this.proofOfWork.check(solution, phone, origin));
    const again = work ? await this.count(request, 'send', { device, work }) : refusal;
    if (again === undefined) return;
    throw this.refused(
      'send',
      again.waitMs,
      again.raisable ? await this.proofOfWork.challenge(phone, origin) : undefined,
    );
  }

  /**
   * Counts a verification before its code is checked. The failures of other clients at the address must not stop a client
   * that asked for its code there: `countAtOrigin` counts it in the bucket of its challenge, as long as that has room.
   * `device`, a device token of the number, raises the limit. Throws `rate_limited`.
   */
  async admitVerify(
    request: FastifyRequest,
    { device, countAtOrigin }: { device: boolean; countAtOrigin: () => Promise<boolean> },
  ): Promise<void> {
    if (await countAtOrigin()) {
      this.counted.set(request, undefined);
      return;
    }
    const refusal = await this.count(request, 'verify', { device });
    if (refusal) throw this.refused('verify', refusal.waitMs);
  }

  /** Counts a status call. Throws `rate_limited`. */
  async admitStatus(request: FastifyRequest): Promise<void> {
    const refusal = await this.count(request, 'status');
    if (refusal) throw this.refused('status', refusal.waitMs);
  }

  /** Counts a failed authentication of a client. The milliseconds for which the address has too many; 0 for none. */
  async countFailedClient(request: FastifyRequest): Promise<number> {
    const address = this.clientAddress.of(request);
    // Without Redis the answer stays the 401, and a client with the right secret gets a 503.
    const answer = await this.storage.admit('client', address, this.limits.client).catch(() => undefined);
    if (answer === undefined || answer.waitMs === 0) return 0;
    this.metrics.limitsHit.inc({ limit: labelOf('client') });
    return answer.waitMs;
  }

  /** Gives the place of a verification with a right code back. When Redis is away the place stays taken. */
  async giveBack(request: FastifyRequest): Promise<void> {
    const place = this.counted.get(request);
    if (place === undefined || !this.counted.delete(request)) return;
    await this.storage.giveBack(place).catch(() => undefined);
  }

  /**
   * The error that the caller of a refused request gets. A request that was refused before its phone number or request
   * id was used, and a repeat of one in flight, count in the looser bucket, and `rate_limited` stands in place of their
   * own error when that bucket is full.
   */
  async countRefused<Refusal>(error: Refusal, request: FastifyRequest): Promise<Refusal | ApiError> {
    const limit = request.method === 'POST' ? ROUTES[request.routeOptions.url ?? ''] : undefined;
    if (limit === undefined || !(error instanceof ApiError)) return error;
    if (error.code === 'idempotency_in_progress') await this.giveBack(request);
    else if (!UNUSABLE.includes(error.status) || this.counted.has(request)) return error;
    const address = this.clientAddress.of(request);
    const bucket = `${limit}-refused` as const;
    // Without Redis the caller still hears what is wrong with the request: it cost nothing.
    const answer = await this.storage.admit(bucket, address, this.limits[bucket]).catch(() => undefined);
    return answer !== undefined && answer.waitMs > 0 ? this.refused(bucket, answer.waitMs) : error;
  }

  /** Undefined when the request was counted. */
  private async count(
    request: FastifyRequest,
    bucket: AddressLimit,
    credential?: Credential,
  ): Promise<{ waitMs: number; raisable: boolean } | undefined> {
    const address = this.clientAddress.of(request);
    const answer = await this.storage.admit(bucket, address, this.limits[bucket], credential);
    if (!('place' in answer)) return answer;
    this.counted.set(request, answer.place);
    return undefined;
  }

  private refused(bucket: Bucket, waitMs: number, proofOfWork?: object): ApiError {
    this.metrics.limitsHit.inc({ limit: labelOf(bucket) });
    // Apart from a challenge, the response does not say which limit it was: that would tell a botnet how many addresses
    // it needs.
    return new ApiError('rate_limited', {
      retryAfterSeconds: waitMs / 1_000,
      ...(proofOfWork && { proofOfWork }),
    });
  }
}

const labelOf = (bucket: Bucket): string => `address_${bucket.replace('-', '_')}`;
