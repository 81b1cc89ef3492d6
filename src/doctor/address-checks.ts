import { isIP } from 'node:net';
import type { Config } from '../config/config';
import type { Logger } from '../logging/logger';
import { ClientAddress, type FoundAddress } from '../http/client-address';
import { fault, ok, warning, type Finding } from './finding';

const CHECK = 'client_address';

/** The meaning of TRUSTED_PROXIES, and the client address that results from a peer and its X-Forwarded-For. */
export function checkAddresses(
  config: Config,
  logger: Logger,
  { peer, forwarded }: { peer?: string | undefined; forwarded?: string | undefined },
): Finding[] {
  const { trustedProxies } = config;
  const findings = [
    trustedProxies.length === 0
      ? ok('trusted_proxies', 'TRUSTED_PROXIES is not set: X-Forwarded-For is ignored')
      : ok('trusted_proxies', `X-Forwarded-For is believed from ${trustedProxies.join(', ')}`),
  ];
  if (peer === undefined && forwarded === undefined) return findings;
  if (peer === undefined || isIP(peer) === 0) {
    return [...findings, fault(CHECK, '--peer must be the IP address of the connection, such as 10.0.3.7.')];
  }
  return [...findings, found(new ClientAddress(config, logger).find(peer, forwarded))];
}

function found({ address, reason }: FoundAddress): Finding {
  switch (reason) {
    case 'no_header':
      return ok(CHECK, `${address} counts: it is the peer, and there is no X-Forwarded-For`);
    case 'named_by_proxy':
      return ok(CHECK, `${address} counts: a trusted proxy names it, and it is none itself`);
    case 'peer_not_trusted':
      return ok(
        CHECK,
        `${address} counts: it is the peer, and its X-Forwarded-For is not believed. If it is a proxy of yours, ` +
          'name it in TRUSTED_PROXIES',
      );
    case 'no_address':
      return warning(
        CHECK,
        `${address} counts: it is in TRUSTED_PROXIES, and the X-Forwarded-For entry that it sent is not an address. All ` +
          'clients behind it share its limits.',
      );
    case 'private_hop':
      return warning(
        CHECK,
        `${address} counts: it is private, not in TRUSTED_PROXIES, and another address stands before it. If it is a ` +
          'proxy of yours, add it to TRUSTED_PROXIES.',
      );
    case 'only_proxies':
      return warning(
        CHECK,
        `${address} counts: every address in X-Forwarded-For is in TRUSTED_PROXIES. It should name proxies only, or a ` +
          'client can choose its address.',
      );
  }
}
