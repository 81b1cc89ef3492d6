import { createHash, randomInt } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { createChallenge, verifySolution, type Challenge, type Payload } from 'altcha-lib';
import { deriveKey as pbkdf2 } from 'altcha-lib/algorithms/pbkdf2';
import { Config } from '../config/config';
import { deriveKey, Keyring } from '../crypto/derived-keys';
import { constantTimeEqual, hmac128 } from '../crypto/mac';
import type { PhoneNumber } from '../phone-number/phone-number';

/** A challenge of ALTCHA's protocol (version 2), as its widget takes it. */
type WorkChallenge = Challenge;

/** How long a challenge may take. */
export const WORK_LIFE_SECONDS = 300;

const ALGORITHM = 'PBKDF2/SHA-256';
/** Iterations of one try: 3,500 tries on average, a second or two on a phone. Making one costs us one try, checking it a hash. */
const COST = 1_000;
/**
 * The counter that solves a challenge is one of these, each as likely as the others. A lower bound above 0 would let a solver
 * leave out the counters below it, and an honest client would do work for nothing.
 */
const COUNTERS = 7_000;

/**
 * Proof of work that this service makes and checks by itself: it makes a thousand requests dear, and one only a little.
 * A challenge is for one phone number and one client address, so that solutions cannot be made by one machine for a
 * whole botnet. The store decides that each is used once.
 */
@Injectable()
export class ProofOfWork {
  private readonly signing: Keyring;
  private readonly answers: Keyring;
  private readonly binding: Buffer;

  constructor(config: Config) {
    this.signing = new Keyring(config, 'proof of work');
    this.answers = new Keyring(config, 'proof of work answer');
    this.binding = deriveKey(config.subjectSecret, 'proof of work binding');
  }

  /** @param now this process's clock, in milliseconds since 1970 */
  async challenge(phone: PhoneNumber, address: string, now = Date.now()): Promise<WorkChallenge> {
    const { id, key } = this.signing.current;
    return createChallenge({
      algorithm: ALGORITHM,
      cost: COST,
      counter: randomInt(COUNTERS),
      data: { key: id, for: this.bound(phone, address) },
      deriveKey: pbkdf2,
      expiresAt: Math.floor(now / 1_000) + WORK_LIFE_SECONDS,
      hmacSignatureSecret: key.toString('base64'),
      hmacKeySignatureSecret: this.answers.current.key.toString('base64'),
    });
  }

  /**
   * The name of a correct, unexpired solution for this number and address; otherwise undefined. A bad
   * solution is not an error: its sender gets the next challenge.
   */
  async check(solution: string, phone: PhoneNumber, address: string): Promise<string | undefined> {
    try {
      const { challenge, solution: answer } = JSON.parse(
        Buffer.from(solution, 'base64').toString(),
      ) as Payload;
      const { data, algorithm, cost } = challenge.parameters;
      const id = String(data?.key);
      const [signing, answers] = [this.signing.find(id), this.answers.find(id)];
      // A solution for another number or address: bought, or made on a faster machine.
      const forThem = constantTimeEqual(String(data?.for), this.bound(phone, address));
      if (!signing || !answers || !forThem) return undefined;
      if (algorithm !== ALGORITHM || cost !== COST) return undefined;
      const { verified } = await verifySolution({
        challenge,
        solution: answer,
        deriveKey: pbkdf2,
        hmacSignatureSecret: signing.toString('base64'),
        hmacKeySignatureSecret: answers.toString('base64'),
      });
      // Named by what is signed: the rest of the text can be written in many ways.
      const { nonce, salt } = challenge.parameters;
      return verified
        ? createHash('sha256').update(`${nonce}:${salt}`).digest('base64url').slice(0, 22)
        : undefined;
    } catch {
      return undefined;
    }
  }

  private bound(phone: PhoneNumber, address: string): string {
    return hmac128(this.binding, `${phone}:${address}`);
  }
}
