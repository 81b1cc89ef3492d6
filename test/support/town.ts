import { ApiError } from '../../src/errors/api-error';
import { Ledger } from '../../src/ledger/ledger';
import { OtpService } from '../../src/otp/otp.service';
import { isPhoneNumber, type PhoneNumber } from '../../src/phone-number/phone-number';
import { Random } from './random';
import type { World } from './world';

/** How the logins of a group of people or bots went. */
export interface Outcome {
  tried: number;
  sent: number;
  loggedIn: number;
  challenged: number;
}
export const noOutcome = (): Outcome => ({ tried: 0, sent: 0, loggedIn: 0, challenged: 0 });
export const share = ({ loggedIn, tried }: Outcome): string => `${((100 * loggedIn) / tried).toFixed(1)} %`;

/**
 * People and bots that log in at one service, whose scripts go by a simulated clock. A test file imports
 * `simulated-clock` first, and calls `loadServiceHere()`.
 */
export class Town {
  /** Numbers that are given out. */
  taken = new Set<string>();
  private readonly random = new Random(4);
  private readonly codes = new Map<string, string>();
  private readonly otp: OtpService;
  private readonly ledger: Ledger;
  private read = 0;

  constructor(private readonly world: World) {
    const { app } = world.instances[0]!;
    this.otp = app.get(OtpService);
    this.ledger = app.get(Ledger);
    world.upstream.settings.balance = 1e6;
  }

  chance(): number {
    return this.random.next();
  }

  upTo(n: number): number {
    return Math.floor(this.chance() * n);
  }

  /** A number that was not given out before. */
  number(): PhoneNumber {
    for (;;) {
      const text = `+91${6 + this.upTo(4)}${String(this.upTo(1e9)).padStart(9, '0')}`;
      if (!isPhoneNumber(text) || this.taken.has(text)) continue;
      this.taken.add(text);
      return text;
    }
  }

  /** The last code that was sent to the number. */
  codeOf(phone: string): string {
    const { messages } = this.world.upstream;
    for (; this.read < messages.length; this.read += 1) {
      const message = messages[this.read]!;
      this.codes.set(message.phoneNumber, message.code);
    }
    return this.codes.get(phone) ?? '';
  }

  /** Asks for a code, solves a challenge unless `solves` is false, and enters the right code, a wrong one or none. */
  async login(
    phone: PhoneNumber,
    address: string,
    who: Outcome,
    { enters = 'right', solves = true }: { enters?: 'right' | 'wrong' | 'none'; solves?: boolean } = {},
  ): Promise<void> {
    who.tried += 1;
    try {
      const context = { address };
      const { requestId } = await this.otp.request(phone, context).catch(async (error: unknown) => {
        if (!(error instanceof ApiError) || error.code !== 'challenge_required') throw error;
        who.challenged += 1;
        if (!solves) throw error;
        return this.otp.request(phone, { ...context, solution: await solve(error.proofOfWork) });
      });
      who.sent += 1;
      if (enters === 'none') return;
      const code = this.codeOf(phone);
      const entered = enters === 'right' ? code : code.replace(/.$/, (d) => String((Number(d) + 1) % 10));
      await this.otp.verify(requestId, entered, context);
      who.loggedIn += 1;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
  }

  /** Writes what the service keeps for the ledger and the abuse control. */
  flush(): Promise<void> {
    return this.ledger.flush();
  }
}

export async function solve(challenge: unknown): Promise<string> {
  const { solveChallenge } = await import('altcha-lib');
  const { deriveKey } = await import('altcha-lib/algorithms/pbkdf2');
  const solution = await solveChallenge({ challenge: challenge as never, deriveKey });
  return Buffer.from(JSON.stringify({ challenge, solution })).toString('base64');
}
