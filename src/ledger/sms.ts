/** One SMS as the ledger knows it: what its challenge keeps, so that its outcome is counted where it was sent. */
export interface Sms {
  /** The id of its first event in the ledger. */
  entry: string;
  /** When it was counted by the limits, in milliseconds of the store's clock. */
  at: number;
  /** Which allowance it was counted in. */
  allowance: 'phone' | 'device';
  /** The address range that asked for it. */
  network: string;
  /** The provider's id of the message; empty where it has none. */
  message: string;
}

export function writeSms({ entry, at, allowance, network, message }: Sms): string {
  return [entry, at, allowance, network, message].join('|');
}

/** Undefined for a record without one, such as a test number's. */
export function readSms(text: string): Sms | undefined {
  const [entry, at, allowance, network, ...message] = text.split('|');
  if (!entry || network === undefined) return undefined;
  return {
    entry,
    at: Number(at),
    allowance: allowance === 'device' ? 'device' : 'phone',
    network,
    message: message.join('|'),
  };
}
