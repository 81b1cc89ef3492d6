import { decimal, oneOf, type Rule, wholeNumber } from './rules';
import type { SettingName, Settings } from './settings';

/** At most `count` in any window of `seconds`. */
export interface Limit {
  readonly count: number;
  readonly seconds: number;
}

/** The reaction of the abuse control to a signal: nothing, an alert, or challenges and refusals. */
export type AbuseMode = 'off' | 'observe' | 'enforce';

const abuseMode = oneOf('off', 'observe', 'enforce');

const DAY = 86_400;
const MONTH = 2_592_000;
const ENTRY_IS = `count/seconds with a count from 1 to 1000000 and seconds from 1 to ${MONTH}`;

const limits: Rule<readonly Limit[]> = {
  expected: `a comma-separated list of ${ENTRY_IS}, no two entries with the same seconds`,
  read(text) {
    const entries = text.split(',').map((entry) => readLimit(entry.trim()));
    if (!entries.every((limit) => limit !== undefined)) return undefined;
    return new Set(entries.map((limit) => limit.seconds)).size === entries.length ? entries : undefined;
  },
};

/**
 * A sixth of the daily budget: without a budget of the hour, an attack of two minutes uses up the day. Less than a hundred
 * SMS would refuse an ordinary rush.
 */
function hourlyShare(perDay: number | undefined): number | undefined {
  const sixth = Math.floor((perDay ?? 0) / 6);
  return sixth >= 2_500 ? sixth : undefined;
}

/** A tenth of the daily budget is enough for two hours of the busiest day; less than Rs 100 is no warning in time. */
function walletShare(perDay: number | undefined): number {
  return Math.max(10_000, Math.floor((perDay ?? 0) / 10));
}

function readLimit(text: string): Limit | undefined {
  const [before = '', after = '', ...rest] = text.split('/');
  const count = decimal(before, 1, 1_000_000);
  const seconds = decimal(after, 1, MONTH);
  return count === undefined || seconds === undefined || rest.length > 0 ? undefined : { count, seconds };
}

/** How often, and for how much money. Sums are whole paise. */
export function readLimits(settings: Settings) {
  const read = (name: SettingName, defaultValue: string) => {
    const value = settings.optional(name, limits) ?? limits.read(defaultValue);
    if (value === undefined) throw new Error(`the default of ${name} does not hold`);
    return value;
  };

  // 0 is a valid budget: it stops every SMS. A price of 0 would make every budget endless.
  const budget = wholeNumber(0, 100_000_000_000);
  const smsPricePaise = settings.withDefault('SMS_PRICE_PAISE', wholeNumber(1, 100_000), 25);
  // The reserve of each budget is for returning numbers: an attack by new numbers must not lock them out.
  const budgetReservePercent = settings.withDefault('BUDGET_RESERVE_PERCENT', wholeNumber(0, 100), 30);
  // Without a budget, an attacker that gets round the limits can spend the whole wallet.
  const budgetPaisePerDay = settings.requiredInProduction('BUDGET_PAISE_PER_DAY', budget);
  const budgetPaisePerHour =
    settings.optional('BUDGET_PAISE_PER_HOUR', budget) ?? hourlyShare(budgetPaisePerDay);
  for (const [name, paise] of [
    ['BUDGET_PAISE_PER_HOUR', budgetPaisePerHour],
    ['BUDGET_PAISE_PER_DAY', budgetPaisePerDay],
  ] as const) {
    if (paise === undefined) continue;
    const unreserved = paise - Math.floor((paise * budgetReservePercent) / 100);
    if (paise < smsPricePaise) settings.warn(name, 'does not pay for one SMS: none is sent');
    else if (unreserved < smsPricePaise)
      settings.warn(name, 'and BUDGET_RESERVE_PERCENT leave nothing for new numbers');
  }

  const limitFailedCodes = read('LIMIT_FAILED_CODES', '10/3600,20/86400');
  if (limitFailedCodes.some(({ seconds }) => seconds > DAY))
    settings.warn(
      'LIMIT_FAILED_CODES',
      'has a window of more than a day: strangers can lock an owner out, and no unlock clears it',
    );

  return {
    limitPhone: read('LIMIT_PHONE', '1/30,3/300,5/3600,10/86400'),
    limitIp: read('LIMIT_IP', '20/600,100/3600'),
    limitVerifyIp: read('LIMIT_VERIFY_IP', '60/600'),
    limitGlobal: read('LIMIT_GLOBAL', '15/1'),
    limitFailedCodes,
    budgetPaisePerHour,
    budgetPaisePerDay,
    smsPricePaise,
    budgetReservePercent,
    walletAlertPaise: settings.optional('WALLET_ALERT_PAISE', budget) ?? walletShare(budgetPaisePerDay),
    // A conversion may fall for good reasons, a bad route of the carrier or a campaign; wrong codes over many numbers
    // have one reason only.
    abuseConversion: settings.withDefault('ABUSE_CONVERSION', abuseMode, 'observe'),
    abuseWrongCodes: settings.withDefault('ABUSE_WRONG_CODES', abuseMode, 'enforce'),
  };
}
