import type { Config, ProviderName } from '../config/config';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import { madeUpstream } from '../challenges/codes';
import type { OtpProvider } from './otp-provider';

/** What there is to send by. StartMessaging is one provider, under two contracts. */
export interface Known {
  caller: OtpProvider;
  provider: OtpProvider;
  sendWithSes: OtpProvider | undefined;
  testNumbers: OtpProvider;
}

/** What says whose a challenge is. */
interface Owned {
  provider: string;
  nonce: string;
  phone?: PhoneNumber;
}

/** Knows who sends, in which order, and who sent the code of a challenge. */
export class Providers {
  private readonly order: readonly OtpProvider[];
  private readonly startMessaging: OtpProvider | undefined;

  constructor(
    config: Config,
    private readonly known: Known,
  ) {
    const { caller, provider, sendWithSes } = known;
    const configured = config.startMessagingContract === 'caller' ? caller : provider;
    this.startMessaging = config.startMessagingApiKey === undefined ? undefined : configured;
    const byName: Record<ProviderName, OtpProvider | undefined> = {
      startmessaging: this.startMessaging,
      sendwithses: sendWithSes,
    };
    this.order = config.providers.flatMap((name) => byName[name] ?? []);
  }

  /** Who is asked to send to this number, one after the other. Test numbers never reach a provider. */
  inOrder(phone: PhoneNumber): readonly [OtpProvider, ...OtpProvider[]] {
    const [first, ...others] = isTestNumber(phone) ? [this.known.testNumbers] : this.order;
    if (first === undefined) throw new Error('There is no provider');
    return [first, ...others];
  }

  /**
   * Whose a challenge is: it stays with who sent its code, also when the order or the contract was changed since. Undefined
   * where its settings are gone: nobody can say what the code was.
   */
  of({ provider, nonce, phone }: Owned): OtpProvider | undefined {
    if (phone !== undefined && isTestNumber(phone)) return this.known.testNumbers;
    if (provider === 'sendwithses') return this.known.sendWithSes;
    // Written before there were two.
    if (provider === '') return this.startMessaging;
    if (provider !== 'startmessaging' || this.startMessaging === undefined) return undefined;
    // Who made the code says which contract it was sent under: under the other it would be looked for where it is not.
    return madeUpstream(nonce) ? this.known.provider : this.known.caller;
  }
}
