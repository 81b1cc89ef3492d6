import { randomUUID } from 'node:crypto';
import type { Config } from '../config/config';
import { standaloneClient } from '../startmessaging/startmessaging.client';
import type { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { UpstreamError } from '../upstream/upstream.error';
import type { Wallet } from '../startmessaging/responses';
import { unitOf, type KnownUnit, type WalletRecord } from '../wallet/wallet-record';
import { REFUSALS } from '../wallet/wallet-watch';
import { paiseOf } from '../wallet/wallet-unit';
import { fault, ok, warning, type Finding } from './finding';

const CONTRACT = 'startmessaging_contract';
const WALLET = 'startmessaging_wallet';

/**
 * Asks StartMessaging for its contract and for the balance of the wallet. Sends no SMS, and so costs nothing.
 *
 * @param record what the service knows of the wallet, its unit for example
 */
export async function checkUpstream(config: Config, record: WalletRecord): Promise<Finding[]> {
  if (!config.startMessagingApiKey) {
    return [ok(CONTRACT, 'STARTMESSAGING_API_KEY is not set: no call is made')];
  }
  const client = standaloneClient({
    baseUrl: config.startMessagingBaseUrl,
    apiKey: config.startMessagingApiKey,
    appName: config.startMessagingAppName,
    timeoutMs: config.upstreamTimeoutMs,
    connectTimeoutMs: config.upstreamConnectTimeoutMs,
    retryDelayMs: 0,
    // The operator can run the tool again.
    maxAttempts: 1,
    deadlineMs: config.upstreamDeadlineMs,
  });
  const { finding, missing, refused } = await wallet(client, config, record);
  const spoken = await contract(client, config, missing);
  // Under `caller` no other route tells whether the key is good.
  const keyIsGood = config.startMessagingContract === 'provider' && spoken.level !== 'fault';
  return [spoken, refused && !keyIsGood ? fault(WALLET, finding.message) : finding];
}

/** Verifies a code of an unknown id: only the `provider` contract has a route for it, and that does not know the id. */
async function contract(client: StartMessagingClient, config: Config, noWallet: boolean): Promise<Finding> {
  const configured = config.startMessagingContract;
  let spoken: 'caller' | 'provider' = 'provider';
  try {
    const code = '0'.repeat(config.otpLength);
    if ((await client.verifyOtp({ requestId: randomUUID(), code })).verified) {
      return fault(
        CONTRACT,
        'StartMessaging calls an invented code right: do not use its answers for a login.',
      );
    }
  } catch (error) {
    if (!(error instanceof UpstreamError)) throw error;
    switch (error.reason) {
      // It knows the route, and not the request.
      case 'request_expired':
      case 'request_malformed':
        break;
      case 'contract_mismatch':
        // A redirect or another refusal comes from another server than StartMessaging.
        if (error.status !== 404) return fault(CONTRACT, `POST /otp/verify ${words(error)}`);
        spoken = 'caller';
        break;
      case 'throttled':
        return warning(CONTRACT, `POST /otp/verify ${words(error)}`);
      default:
        return fault(CONTRACT, `POST /otp/verify ${words(error)}`);
    }
  }
  if (spoken === configured && noWallet) {
    const doubt = 'but it has no wallet: is STARTMESSAGING_BASE_URL that of StartMessaging?';
    return warning(CONTRACT, `The server seems to speak \`${spoken}\`, ${doubt}`);
  }
  if (spoken === configured) return ok(CONTRACT, `StartMessaging speaks \`${spoken}\`, as is configured`);
  return fault(
    CONTRACT,
    `STARTMESSAGING_CONTRACT is ${configured}, but StartMessaging speaks ${spoken} ` +
      `(${spoken === 'caller' ? 'it has no' : 'it has a'} route POST /otp/verify): no login works. Set it to ${spoken}.`,
  );
}

/** `missing`: the server has no wallet, as any other web server would answer. */
async function wallet(
  client: StartMessagingClient,
  config: Config,
  record: WalletRecord,
): Promise<{ finding: Finding; missing: boolean; refused: boolean }> {
  try {
    return { finding: filled(await client.readWallet(), config, record), missing: false, refused: false };
  } catch (error) {
    if (!(error instanceof UpstreamError)) throw error;
    const estimated = REFUSALS.has(error.reason)
      ? ` The service estimates the balance by its ledger: ${estimate(record)}.`
      : '';
    return {
      finding: warning(WALLET, `GET /wallet ${words(error)}${estimated}`),
      missing: error.status === 404,
      refused: error.reason === 'credentials_refused',
    };
  }
}

function estimate({ reading }: WalletRecord): string {
  return reading === undefined ? 'it has never read one' : 'the last one that it read, less the SMS since';
}

const UNIT_FROM: Record<KnownUnit['from'], string> = {
  setting: 'by STARTMESSAGING_WALLET_UNIT',
  inferred: 'inferred from the amount that accepted SMS took away',
  assumed:
    'assumed, because no SMS was accepted yet between two readings: set STARTMESSAGING_WALLET_UNIT if it is wrong',
};

function filled({ balance, currency }: Wallet, config: Config, record: WalletRecord): Finding {
  if (balance === undefined)
    return warning(WALLET, 'StartMessaging does not tell the balance of the wallet.');
  if (Number(balance) <= 0) return warning(WALLET, `The wallet is empty (${balance}): recharge it.`);
  const { unit, from } = unitOf(balance, config.walletUnit, record);
  const paise = paiseOf(balance, unit);
  const told = `${balance}${currency === undefined ? '' : ` ${currency}`}`;
  const holds = `The wallet holds Rs ${(paise / 100).toFixed(2)} (${told}, in ${unit}: ${UNIT_FROM[from]})`;
  if (record.inferred !== undefined && record.inferred !== unit) {
    return warning(
      WALLET,
      `${holds}. Accepted SMS took away amounts in ${record.inferred}: correct STARTMESSAGING_WALLET_UNIT.`,
    );
  }
  if (paise < config.walletAlertPaise) {
    return warning(WALLET, `${holds}. This is below WALLET_ALERT_PAISE: recharge it.`);
  }
  return ok(WALLET, holds);
}

/** Never upstream's own text: a terminal obeys what it reads. */
function words({ reason, status }: UpstreamError): string {
  switch (reason) {
    case 'credentials_refused':
      return `is refused (${status}): STARTMESSAGING_API_KEY is wrong or suspended, or not allowed from this address.`;
    case 'throttled':
      return 'is throttled: run this again in a minute.';
    case 'unreachable':
      return 'cannot be reached: look at STARTMESSAGING_BASE_URL, DNS, the firewall and the certificate.';
    case 'timed_out':
      return 'is not answered within UPSTREAM_TIMEOUT_MS.';
    case 'failed':
      return `failed (${status ?? 'the connection broke, or the answer cannot be read'}).`;
    case 'wallet_empty':
      return 'is refused because the wallet is empty: recharge it.';
    default:
      return `is answered with ${status ?? 'nothing'}: is STARTMESSAGING_BASE_URL that of StartMessaging?`;
  }
}
