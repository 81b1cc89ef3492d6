import { webAddress } from '../config/addresses';
import { isLoopback } from '../net/addresses';
import { fault, ok, warning, type Finding } from './finding';

const CHECK = 'service_address';
const PATIENCE_MS = 10_000;
const LARGEST_ANSWER = 16_384;

/** Asks a running service, perhaps through its load balancer, which client address it sees for this machine. */
export async function askService(url: string, token: string | undefined): Promise<Finding[]> {
  const base = webAddress.read(url)?.replace(/\/+$/, '');
  if (base === undefined) return [fault(CHECK, `--url must be ${webAddress.expected}.`)];
  if (token === undefined) {
    return [
      fault(CHECK, 'ADMIN_TOKEN is not set: give an operator’s token of ADMIN_TOKENS in this variable.'),
    ];
  }
  const seenOnTheWay =
    base.startsWith('http:') && !isLoopback(new URL(base).hostname)
      ? [
          warning(
            CHECK,
            'The token goes to --url without TLS: an attacker on the network can read and use it.',
          ),
        ]
      : [];
  return [...seenOnTheWay, await ask(base, token)];
}

async function ask(base: string, token: string): Promise<Finding> {
  try {
    const answer = await fetch(`${base}/admin/address`, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
      // A redirect must not carry the token to another server.
      redirect: 'manual',
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const text = await readText(answer);
    return answer.status === 200 ? seen(text) : fault(CHECK, refusal(answer.status));
  } catch (error) {
    const late = error instanceof Error && error.name === 'TimeoutError';
    const { code } = ((error as { cause?: unknown }).cause ?? {}) as { code?: unknown };
    const why = late ? 'no answer came in time' : typeof code === 'string' ? code : 'the connection broke';
    return fault(CHECK, `The service is not reached at --url: ${why}.`);
  }
}

function refusal(status: number): string {
  switch (status) {
    case 401:
      return 'The service refuses ADMIN_TOKEN (401): it is none of its ADMIN_TOKENS.';
    case 404:
      return (
        'There is no /admin/address (404): ADMIN_TOKENS is not set there, or it is an older version, or what stands in ' +
        'front of it does not let /admin through.'
      );
    default:
      return `The service answers ${status} for /admin/address: is --url its address?`;
  }
}

function seen(text: string): Finding {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  const { peer, forwarded, address } = (body ?? {}) as Record<string, unknown>;
  if (typeof peer !== 'string' || typeof address !== 'string') {
    return fault(CHECK, 'The server at /admin/address is not this service: is --url its address?');
  }
  const header = typeof forwarded === 'string' ? printable(forwarded) : undefined;
  const message =
    `Asked from here, ${printable(address)} counts; the peer is ${printable(peer)}, ` +
    (header === undefined ? 'and there is no X-Forwarded-For' : `X-Forwarded-For is "${header}"`);
  if (header === undefined || peer !== address) return ok(CHECK, message);
  return warning(
    CHECK,
    `${message}, which is not believed: name the peer in TRUSTED_PROXIES if it is your proxy.`,
  );
}

/** A terminal obeys control characters, and any client chooses the text of the header. */
function printable(text: string): string {
  return text.slice(0, 500).replace(/[^ -~]/g, '?');
}

async function readText({ body }: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of (body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > LARGEST_ANSWER) break;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
