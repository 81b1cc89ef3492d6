import { OtpResponses } from '../../src/auth/otp-responses';
import { Codes } from '../../src/challenges/codes';
import { RequestIds, type RequestId } from '../../src/challenges/request-ids';
import { deriveKey, Keyring } from '../../src/crypto/derived-keys';
import { hmac128 } from '../../src/crypto/mac';
import { ApiError, type ErrorCode } from '../../src/errors/api-error';
import { addressScopes } from '../../src/net/addresses';
import { openPhoneNumber, sealPhoneNumber } from '../../src/phone-number/phone-cipher';
import { PhoneIdentities } from '../../src/phone-number/phone-identity';
import type { PhoneNumber } from '../../src/phone-number/phone-number';
import { Subjects } from '../../src/sessions/subjects';
import { RefreshTokens } from '../../src/tokens/refresh-tokens';
import { AccessTokens } from './access-tokens';
import type { AddressBucket } from './limits';
import { log } from './log';
import type { EditionSettings } from './settings';
import type { Answer, Command, StepName, Store } from './steps';
import { StartMessaging } from './upstream';
import { windowsOf } from './windows';

/** A code's whole life, resends included. */
export const CODE_LIFE_MS = 600_000;
/** The time of the store's steps around a call of upstream, all together. */
const STORE_MS = 5_000;

const POLL_MS = 200;
const MOST_POLLS = 10;
const MOST_WAITERS = 100;

/** One place of an address in a bucket; the place of a verification with a right code is given back. */
export interface AddressPlace {
  key: string;
  bucket: AddressBucket;
  entry: number;
}

/** The parts that the use cases share: settings, keys, the store and the upstream. */
export class Edition {
  readonly codes: Codes;
  readonly requestIds: RequestIds;
  readonly phones: PhoneIdentities;
  readonly subjects: Subjects;
  readonly refreshTokens: RefreshTokens;
  readonly accessTokens: AccessTokens;
  readonly upstream: StartMessaging;
  readonly responses: OtpResponses;
  readonly phoneKeys: Keyring;
  readonly codeKeys: Keyring;
  /** The longest time that a send can take: a repeat that resumed it earlier could send a second SMS. */
  readonly leaseMs: number;
  private readonly addressKey: Buffer;
  private waiters = 0;

  constructor(
    readonly settings: EditionSettings,
    private readonly store: Store,
  ) {
    this.codes = new Codes(settings);
    this.requestIds = new RequestIds(settings);
    this.phones = new PhoneIdentities(settings);
    this.subjects = new Subjects(settings);
    this.refreshTokens = new RefreshTokens(settings);
    this.accessTokens = new AccessTokens(settings);
    this.upstream = new StartMessaging(settings);
    // Magic numbers are for the demo of the service.
    this.responses = new OtpResponses({ ...settings, magicNumbers: false });
    this.phoneKeys = new Keyring(settings, 'phone encryption');
    this.codeKeys = new Keyring(settings, 'code');
    this.addressKey = this.key('client address');
    this.leaseMs = settings.upstreamDeadlineMs + STORE_MS;
  }

  /** A key for one purpose, of the secret that is never rotated. */
  key(label: string): Buffer {
    return deriveKey(this.settings.subjectSecret, label);
  }

  /** Runs a step. Throws `store_unavailable` if the store cannot be reached: each operation fails closed. */
  async run<Name extends StepName>(
    document: string,
    name: Name,
    command: Command<Name>,
  ): Promise<Answer<Name>> {
    try {
      return await this.store.run(document, name, command);
    } catch (error) {
      log('error', 'The store could not be reached', { step: name, error });
      throw new ApiError('store_unavailable', { retryAfterSeconds: 1, cause: error });
    }
  }

  /** Asks until no other request holds the lease, for two seconds at most. The bound keeps repeats from filling the process. */
  async untilFree<Found extends { kind: string }>(
    ask: () => Promise<Found>,
  ): Promise<Exclude<Found, { kind: 'in_progress' }>> {
    let answer = await ask();
    const most = this.waiters < MOST_WAITERS ? MOST_POLLS : 0;
    this.waiters += 1;
    try {
      for (let polls = 0; polls < most && answer.kind === 'in_progress'; polls += 1) {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        answer = await ask();
      }
    } finally {
      this.waiters -= 1;
    }
    if (answer.kind !== 'in_progress') return answer as Exclude<Found, { kind: 'in_progress' }>;
    throw new ApiError('idempotency_in_progress', { retryAfterSeconds: 1 });
  }

  /**
   * Counts a request of a client address. An IPv6 address counts by /48 first, at ten times the limit, so that the holder of
   * a network cannot make the store keep a document for each of its /64. Throws `rate_limited`.
   */
  async admitAddress(bucket: AddressBucket, address: string): Promise<AddressPlace[]> {
    const limits = bucket === 'send' ? this.settings.limitIp : this.settings.limitVerifyIp;
    const places: AddressPlace[] = [];
    for (const { scope, factor } of addressScopes(address).reverse()) {
      const key = `address:${hmac128(this.addressKey, scope)}`;
      const windows = windowsOf(limits, factor);
      const { waitMs, entry } = await this.run(key, 'countAddress', { bucket, windows });
      if (waitMs > 0) {
        await this.giveBack(places);
        throw new ApiError('rate_limited', { retryAfterSeconds: waitMs / 1_000 });
      }
      places.push({ key, bucket, entry });
    }
    return places;
  }

  /** Gives places of an address back. If the store cannot be reached, they stay taken. */
  async giveBack(places: readonly AddressPlace[]): Promise<void> {
    for (const { key, bucket, entry } of places) {
      await this.run(key, 'giveAddressBack', { bucket, entry }).catch(() => undefined);
    }
  }

  /** The phone number as the record of this name keeps it. */
  seal(phone: PhoneNumber, record: string): string {
    return sealPhoneNumber(phone, record, this.phoneKeys);
  }

  /** The phone number of a record; undefined for a ciphertext that was not made for it. */
  unseal(sealed: string, record: string): PhoneNumber | undefined {
    return openPhoneNumber(sealed, record, this.phoneKeys);
  }

  /** The request id that a client sent. Throws `otp_expired` for an id that this edition did not issue. */
  readRequestId(text: string): RequestId {
    const id = this.requestIds.open(text);
    if (id === undefined) throw new ApiError('otp_expired');
    return id;
  }

  /** The code of a test number; undefined for every other number, and for one that has expired. */
  testCode(phone: string): string | undefined {
    const found = this.settings.testNumbers.find(({ phoneNumber }) => phoneNumber === phone);
    return found?.expiresAt === undefined || found.expiresAt.getTime() > Date.now() ? found?.code : undefined;
  }

  /** Whether pages of this origin may call with credentials: those of CORS_ORIGINS and the issuer's own. */
  allowsOrigin(origin: string): boolean {
    return this.settings.corsOrigins.includes(origin) || origin === new URL(this.settings.issuer).origin;
  }
}

export const numberKey = ({ pseudonym }: { pseudonym: string }): string => `number:${pseudonym}`;
export const challengeRecord = (id: RequestId): string => `${numberKey(id)}:challenge:${id.own}`;
export const userKey = (subject: string): string => `user:${subject}`;
export const SERVICE_KEY = 'service';

/** The error of an expected outcome, or `internal_error` with its cause for the log. */
export function toApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  return new ApiError('internal_error' satisfies ErrorCode, { cause: thrown });
}
