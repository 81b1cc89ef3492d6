import type { Alert } from '../logging/logger';

/** What a receiver tells apart: whom to call, not what exactly happened. */
export type AlertType = 'wallet' | 'credentials' | 'contract' | 'budget' | 'guard' | 'reuse' | 'provider';

export const ALERT_TYPES: Record<Alert, AlertType> = {
  provider_down: 'provider',
  wallet_exhausted: 'wallet',
  upstream_credentials: 'credentials',
  contract_mismatch: 'contract',
  request_malformed: 'contract',
  budget_exhausted: 'budget',
  sms_price: 'budget',
  guard_conversion: 'guard',
  guard_wrong_codes: 'guard',
  token_reused: 'reuse',
};
