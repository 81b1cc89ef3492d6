/** The alerts that need an operator. docs/alerts.md has a section for each. */
export type Alert =
  | 'provider_down'
  | 'wallet_exhausted'
  | 'wallet_low'
  | 'upstream_credentials'
  | 'contract_mismatch'
  | 'request_malformed'
  | 'budget_exhausted'
  | 'abuse_conversion'
  | 'abuse_wrong_codes'
  | 'sms_price'
  | 'token_reused';

/** The type of an alert says which team to call, and `alert` what exactly happened. */
export type AlertType = 'wallet' | 'credentials' | 'contract' | 'budget' | 'abuse' | 'reuse' | 'provider';

export const ALERT_TYPES: Record<Alert, AlertType> = {
  provider_down: 'provider',
  wallet_exhausted: 'wallet',
  wallet_low: 'wallet',
  upstream_credentials: 'credentials',
  contract_mismatch: 'contract',
  request_malformed: 'contract',
  budget_exhausted: 'budget',
  sms_price: 'budget',
  abuse_conversion: 'abuse',
  abuse_wrong_codes: 'abuse',
  token_reused: 'reuse',
};
