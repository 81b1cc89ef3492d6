import { randomInt, randomUUID } from 'node:crypto';

/** How the emulated account behaves. Every field may be changed while it runs. */
export interface EmulatorSettings {
  /** Which bodies `POST /otp/send` takes; under `caller` there is no `/otp/verify`. */
  contract: 'both' | 'caller' | 'provider';
  /** Whether a number gets three SMS in 300 seconds at most, as the vendor has it. */
  perNumberLimit: boolean;
  /** Rupees in the wallet. */
  balance: number;
  /** In what `GET /wallet` counts: the vendor's sources disagree. */
  walletUnit: 'rupees' | 'millionths';
  /** How long a code made here lives, and how many wrong ones are borne. */
  otpTtlSeconds: number;
  otpAttempts: number;
  /** When, after it was accepted, an SMS is reported sent and delivered. */
  sentAfterMs: number;
  deliveredAfterMs: number;
}

/** An SMS that was accepted and charged. */
export interface SentMessage {
  readonly id: string;
  /** The id of this OTP: `otpRequestId` in one contract, `requestId` in the other. */
  readonly requestId: string;
  readonly phoneNumber: string;
  readonly code: string;
  readonly text: string;
  readonly contract: 'caller' | 'provider' | 'sendwithses';
  readonly idempotencyKey: string | undefined;
  readonly createdAt: string;
  /** `initiated`, `sent`, `delivered` as time goes by, or what a fault made of it. */
  readonly status: string;
  readonly failureReason: string | undefined;
}

/** An OTP that was made here. Under the `provider` contract each keeps its own code, so an older one can still be checked. */
export interface OtpRequest {
  readonly phoneNumber: string;
  readonly code: string;
  readonly expiresAt: number;
  attemptsLeft: number;
  used: boolean;
}

/** The fate of an SMS instead of its delivery. */
export interface Fate {
  status: string;
  failureReason?: string;
}

/** The price of one SMS, in rupees. */
export const PRICE = 0.25;

const API_KEY = /^sm_live_[0-9a-f]{40}$/i;
const LIMIT = 3;
const LIMIT_MS = 300_000;
// A load test must not fill the memory: the oldest SMS are forgotten.
const REMEMBERED = 20_000;

/** The data of one customer of StartMessaging: the wallet, the SMS, and the codes that it made. */
export class Account {
  readonly messages: SentMessage[] = [];
  /** No setting: settings are shown in the inbox. */
  private apiKeys: readonly string[] = [];
  readonly otpRequests = new Map<string, OtpRequest>();
  /** The live codes of Send With SES. */
  readonly codesByNumber = new Map<string, OtpRequest>();
  /** The answers of the `provider` contract by idempotency key. */
  readonly replays = new Map<string, { phoneNumber: string; data: Record<string, unknown>; at: number }>();
  private readonly fates = new Map<string, Fate>();
  private readonly byId = new Map<string, SentMessage>();

  constructor(readonly settings: EmulatorSettings) {}

  /** The keys that are good from now on; without any, every one of the right form. */
  acceptKeys(keys: readonly string[]): void {
    this.apiKeys = keys;
  }

  isGoodKey(key: unknown): boolean {
    if (typeof key !== 'string') return false;
    return this.apiKeys.length === 0 ? API_KEY.test(key) : this.apiKeys.includes(key);
  }

  message(id: string): SentMessage | undefined {
    return this.byId.get(id);
  }

  lastMessageTo(phoneNumber: string): SentMessage | undefined {
    return this.messages.findLast((message) => message.phoneNumber === phoneNumber);
  }

  /** Whether one more SMS to this number is one too many. */
  limits(phoneNumber: string): boolean {
    if (!this.settings.perNumberLimit) return false;
    const since = new Date(Date.now() - LIMIT_MS).toISOString();
    const recent = this.messages.filter(
      (sent) => sent.phoneNumber === phoneNumber && sent.contract !== 'sendwithses' && sent.createdAt > since,
    );
    return recent.length >= LIMIT;
  }

  /** Accepts an SMS, and charges for it. Send With SES is another account, which only a fault empties. */
  accept(
    sms: Pick<SentMessage, 'phoneNumber' | 'code' | 'text' | 'contract' | 'idempotencyKey'>,
  ): SentMessage {
    const { fates, settings } = this;
    const id = randomUUID();
    const created = Date.now();
    const message: SentMessage = {
      id,
      requestId: randomUUID(),
      ...sms,
      createdAt: new Date(created).toISOString(),
      get status() {
        const age = Date.now() - created;
        const reached = age >= settings.deliveredAfterMs ? 'delivered' : 'sent';
        return fates.get(id)?.status ?? (age >= settings.sentAfterMs ? reached : 'initiated');
      },
      get failureReason() {
        return fates.get(id)?.failureReason;
      },
    };
    if (sms.contract !== 'sendwithses') settings.balance -= PRICE;
    this.messages.push(message);
    this.byId.set(id, message);
    if (this.messages.length > REMEMBERED) this.forget(this.messages.shift());
    return message;
  }

  /** Makes a code for a request of the `provider` contract. */
  openOtp(message: SentMessage): OtpRequest {
    const otp = this.otpOf(message);
    this.otpRequests.set(message.requestId, otp);
    return otp;
  }

  /** Makes the number's one live code at Send With SES. */
  openCodeOf(message: SentMessage): void {
    this.codesByNumber.set(message.phoneNumber, this.otpOf(message));
  }

  decide(id: string, fate: Fate): void {
    this.fates.set(id, fate);
  }

  reset(): void {
    this.messages.length = 0;
    this.acceptKeys([]);
    for (const memory of [this.otpRequests, this.codesByNumber, this.replays, this.fates, this.byId]) {
      memory.clear();
    }
  }

  private otpOf({ phoneNumber, code, createdAt }: SentMessage): OtpRequest {
    const expiresAt = Date.parse(createdAt) + this.settings.otpTtlSeconds * 1000;
    return { phoneNumber, code, expiresAt, attemptsLeft: this.settings.otpAttempts, used: false };
  }

  private forget(message: SentMessage | undefined): void {
    if (!message) return;
    this.byId.delete(message.id);
    this.fates.delete(message.id);
    this.otpRequests.delete(message.requestId);
    if (this.codesByNumber.get(message.phoneNumber)?.code === message.code) {
      this.codesByNumber.delete(message.phoneNumber);
    }
    if (message.idempotencyKey !== undefined) this.replays.delete(message.idempotencyKey);
  }
}

export function newCode(): string {
  return String(randomInt(1_000_000)).padStart(6, '0');
}
