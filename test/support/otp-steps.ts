import type { Config } from '../../src/config/config';
import { Attempts } from '../../src/otp/attempts';
import { ChallengeRecords } from '../../src/otp/challenge-records';
import { Challenges } from '../../src/otp/challenges';
import { Claims } from '../../src/otp/claims';
import { Codes } from '../../src/otp/codes';
import { PendingChallenges } from '../../src/otp/pending-challenges';
import type { Store } from '../../src/redis/store';

/** What a replica of the service does with challenges over its store. */
export interface OtpSteps {
  challenges: Challenges;
  pending: PendingChallenges;
  tries: Attempts;
  codes: Codes;
  claims: Claims;
}

export function otpSteps(config: Config, store: Store): OtpSteps {
  const codes = new Codes(config);
  const records = new ChallengeRecords(config);
  const claims = new Claims(config, store, records);
  return {
    challenges: new Challenges(config, store, codes, records, claims),
    pending: new PendingChallenges(config, store, codes, records, claims),
    tries: new Attempts(config, store, records, claims),
    codes,
    claims,
  };
}
