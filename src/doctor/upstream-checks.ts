import { randomUUID } from 'node:crypto';
import type { Config } from '../config/config';
import { standaloneClient } from '../startmessaging/startmessaging.client';
import type { StartMessagingClient } from '../startmessaging/startmessaging.client';
import { UpstreamError } from '../upstream/upstream.error';
import type { Wallet } from '../startmessaging/responses';
import { fault, ok, warning, type Finding } from './finding';

const CONTRACT = 'startmessaging_contract';
const WALLET = 'startmessaging_wallet';

/** Asks StartMessaging what it speaks and what is left to pay with. Sends no SMS, and so costs nothing. */
export async function checkUpstream(config: Config): Promise<Finding[]> {
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
  const { finding, missing } = await wallet(client);
  return [await contract(client, config, missing), finding];
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
async function wallet(client: StartMessagingClient): Promise<{ finding: Finding; missing: boolean }> {
  try {
    return { finding: filled(await client.readWallet()), missing: false };
  } catch (error) {
    if (!(error instanceof UpstreamError)) throw error;
    const refused = error.reason === 'credentials_refused';
    return {
      finding: (refused ? fault : warning)(WALLET, `GET /wallet ${words(error)}`),
      missing: error.status === 404,
    };
  }
}

function filled({ balance, currency }: Wallet): Finding {
  if (balance === undefined) return warning(WALLET, 'StartMessaging does not tell what is in the wallet.');
  if (Number(balance) <= 0) return warning(WALLET, `The wallet is empty (${balance}): recharge it.`);
  const unit = 'in rupees or in millionths of one, StartMessaging does not say which';
  return ok(WALLET, `The wallet holds ${balance}${currency === undefined ? '' : ` ${currency}`} (${unit})`);
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
