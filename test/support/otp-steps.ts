import type { Config } from '../../src/config/config';
import { Attempts } from '../../src/challenges/attempts';
import { ChallengeRecords } from '../../src/challenges/challenge-records';
import { Challenges } from '../../src/challenges/challenges';
import { IdempotencyLock } from '../../src/challenges/idempotency-lock';
import { Codes } from '../../src/challenges/codes';
import { RequestIds } from '../../src/challenges/request-ids';
import { PhoneIdentities } from '../../src/phone-number/phone-identity';
import type { Store } from '../../src/redis/store';

/** What a replica of the service does with challenges over its store. */
export interface OtpSteps {
  challenges: Challenges;
  tries: Attempts;
  codes: Codes;
  claims: IdempotencyLock;
}

export function otpSteps(config: Config, store: Store): OtpSteps {
  const codes = new Codes(config);
  const records = new ChallengeRecords(config, new PhoneIdentities(config));
  const requestIds = new RequestIds(config);
  const claims = new IdempotencyLock(config, store);
  return {
    challenges: new Challenges(config, store, codes, records, requestIds, claims),
    tries: new Attempts(config, store, records, requestIds, claims),
    codes,
    claims,
  };
}
