import type { OtpRequest, OtpState } from '../challenges/challenge';
import type { Config } from '../config/config';
import { CODE_LENGTH } from '../config/test-number';
import { ApiError } from '../errors/api-error';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import type { OtpRequestResponse, OtpStatusResponse } from './responses.dto';

/** The pauses between two polls: the older an SMS is, the less there is to learn by asking often. */
const POLL_SECONDS = { shortest: 2, longest: 30 };

/** Tells a page how its request for a code stands: times also in seconds from now, because the clocks of phones are wrong. */
export class OtpResponses {
  constructor(
    private readonly config: Pick<
      Config,
      'providers' | 'startMessagingContract' | 'otpLength' | 'otpTtlSeconds' | 'testNumbers' | 'magicNumbers'
    >,
  ) {}

  /** Throws `validation_failed` for a code whose length cannot be right, before it costs the user an attempt. */
  checkLength(otpCode: string): void {
    const { lengths } = this;
    if (lengths.includes(otpCode.length)) return;
    const message = `otpCode must have exactly ${[...new Set(lengths)].join(' or ')} digits`;
    throw new ApiError('validation_failed', { errors: [{ field: 'otpCode', message }] });
  }

  ofSend(phoneNumber: PhoneNumber, request: OtpRequest): OtpRequestResponse {
    const codeLength = isTestNumber(phoneNumber) ? CODE_LENGTH : this.usualLength;
    return { requestId: request.requestId, ...this.standing(request), codeLength };
  }

  ofStatus(request: OtpRequest & { state: OtpState }): OtpStatusResponse {
    const standing = this.standing(request);
    const { state, delivery } = request;
    const waiting = state === 'pending' && delivery !== 'delivered' && delivery !== 'failed';
    const age = this.config.otpTtlSeconds - standing.expiresInSeconds;
    const { shortest, longest } = POLL_SECONDS;
    const pollAfterSeconds = waiting ? Math.min(longest, Math.max(shortest, age)) : longest;
    return { state, ...standing, codeLength: this.usualLength, pollAfterSeconds };
  }

  /** How many digits a code may have; the first is that of the preferred provider. */
  private get lengths(): number[] {
    const { providers, startMessagingContract, otpLength, testNumbers, magicNumbers } = this.config;
    const lengths = providers.map((provider) =>
      provider === 'startmessaging' && startMessagingContract === 'caller' ? CODE_LENGTH : otpLength,
    );
    return testNumbers.length > 0 || magicNumbers ? [...lengths, CODE_LENGTH] : lengths;
  }

  private get usualLength(): number {
    return this.lengths[0] ?? CODE_LENGTH;
  }

  private standing({ attemptsLeft, expiresAt, resendAt, delivery }: OtpRequest) {
    const now = Date.now();
    const secondsUntil = (time: Date): number => Math.max(0, (time.getTime() - now) / 1_000);
    return {
      attemptsLeft,
      expiresAt: expiresAt.toISOString(),
      // Rounded so that a page which counts down neither offers a dead code nor asks for an SMS too early.
      expiresInSeconds: Math.floor(secondsUntil(expiresAt)),
      resendAt: resendAt.toISOString(),
      resendInSeconds: Math.ceil(secondsUntil(resendAt)),
      delivery,
    };
  }
}
