import type { Config, ProviderName } from '../config/config';
import { isTestNumber, type PhoneNumber } from '../phone-number/phone-number';
import { madeUpstream } from '../challenges/codes';
import type { OtpProvider } from './otp-provider';

/** The configured providers. StartMessaging is one provider, under two contracts. */
export interface Known {
  caller: OtpProvider;
  provider: OtpProvider;
  sendWithSes: OtpProvider | undefined;
  testNumbers: OtpProvider;
}

/** The fields of a challenge that identify its provider. */
interface Owned {
  provider: string;
  nonce: string;
  phone?: PhoneNumber;
}

/** Knows the providers, their order, and the provider that sent the code of a challenge. */
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

  /** The providers for a send to this number, the preferred one first. Test numbers never reach a provider. */
  inOrder(phone: PhoneNumber): readonly [OtpProvider, ...OtpProvider[]] {
    const [first, ...others] = isTestNumber(phone) ? [this.known.testNumbers] : this.order;
    if (first === undefined) throw new Error('There is no provider');
    return [first, ...others];
  }

  /**
   * The provider of a challenge: the one that sent its code, also after a change of the order or the contract. Undefined when
   * its settings are gone, because no provider can check the code then.
   */
  of({ provider, nonce, phone }: Owned): OtpProvider | undefined {
    if (phone !== undefined && isTestNumber(phone)) return this.known.testNumbers;
    if (provider === 'sendwithses') return this.known.sendWithSes;
    if (provider !== 'startmessaging' || this.startMessaging === undefined) return undefined;
    // The maker of the code tells the contract of the send. The other contract would not find the code.
    return madeUpstream(nonce) ? this.known.provider : this.known.caller;
  }
}
