import { partsOf } from './keys';
/** What clients, upstream and the ledger saw of one run under faults. Times are milliseconds of one machine's clock. */
export interface History {
  contract: 'caller' | 'provider';
  calls: Call[];
  /** What upstream accepted and charged. */
  messages: { at: number; number: string; code: string; key: string; failed: boolean }[];
  /** Upstream's calls of `/otp/verify`. */
  looks: { at: number; code: string; status: number; accepted: boolean }[];
  /** The events of the ledger that spend money or give it back, as Redis has them at the end. */
  ledger: { id: string; event: 'sent' | 'refunded'; at: number; pseudonym?: string; sms?: string }[];
  /** What `/admin/usage` says in the end. */
  usage: { sent: number; refunded: number };
  /** When an instance was killed, and when it was ready again. */
  instanceKills: { instance: number; at: number; until: number }[];
  /** When a primary was failed over, and when its replica had taken over. */
  failovers: { kind: 'planned' | 'killed'; shard: number; at: number; until: number }[];
  /** The shard that keeps what is tagged so: a pseudonym, a subject, `admission`. */
  shardOf: (tag: string) => number | undefined;
  rules: Rules;
}

export interface Rules {
  phone: Limit[];
  service: Limit[];
  pricePaise: number;
  budgetPaise: number;
  attempts: number;
  sessionsPerUser: number;
  codeLifeMs: number;
  graceMs: number;
  /** The longest answer of a step that asks Redis alone, and of one that may ask upstream. */
  storeMs: number;
  upstreamMs: number;
  /** All calls and pauses of one send. */
  upstreamDeadlineMs: number;
  /** How long after the last failover Redis may still be away. */
  healMs: number;
}

interface Limit {
  count: number;
  seconds: number;
}

type Op = 'send' | 'verify' | 'status' | 'refresh' | 'me' | 'logout';

/** One call of a client, and what it was told. */
export interface Call {
  client: string;
  op: Op;
  at: number;
  until: number;
  instance: number;
  /** 0: no answer came. */
  status: number;
  /** `ok`, the code of the error, or what became of the connection. */
  outcome: string;
  retryAfter: boolean;
  /** The number that it is about; only a client that has the phone to itself tells what its code should do. */
  number?: string | undefined;
  shared?: boolean | undefined;
  key?: string | undefined;
  /** The request id: answered to a send, given to a verification. */
  request?: string | undefined;
  code?: string | undefined;
  /** Whose token was given: a refresh token has a counter, an access token a time (ms) when it expires. */
  given?: Token | undefined;
  /** Whose tokens, or what of a person, came back. */
  got?: (Token & { number?: string }) | undefined;
}

export interface Token {
  subject: string;
  session: string;
  counter?: number;
  expires?: number;
}

export interface Violation {
  rule: string;
  what: string;
  /** The calls that tell how it came to it, in short lines. */
  story: string[];
}

export interface Outcome {
  violations: Violation[];
  /** What only a write explains that was lost with a killed primary: allowed, and counted. */
  allowances: string[];
}

/** Redis replicates asynchronously: what a primary took this shortly before it was killed may be lost. */
const LOST_MS = 1_000;
/** SMS that the carrier failed and that a number is forgiven, a day. */
const FORGIVEN = 5;

const STORE = ['store_unavailable', 'overloaded'];
const ENDED = ['session_expired', 'session_revoked'];
const UPSTREAM = ['internal_error', 'upstream_unavailable', 'upstream_timeout', 'sms_unavailable'];
const LOOKED_UP = ['otp_incorrect', 'otp_expired', 'otp_attempts_exhausted', 'phone_locked'];

/** Every error that the documentation names for the route; of `verify` those of upstream only where it is asked. */
function documented({ op }: Call, contract: History['contract']): string[] {
  switch (op) {
    case 'send':
      return [
        ...['phone_number_rejected', 'idempotency_in_progress', 'phone_locked', 'rate_limited'],
        ...UPSTREAM,
        ...STORE,
      ];
    case 'verify':
      return [
        ...['idempotency_in_progress', 'rate_limited', ...LOOKED_UP, ...STORE],
        ...(contract === 'provider' ? UPSTREAM : []),
      ];
    case 'status':
      return ['otp_expired', 'rate_limited', ...STORE];
    case 'refresh':
      return ['refresh_token_invalid', 'refresh_token_reused', ...ENDED, ...STORE];
    case 'me':
      return ['unauthenticated', ...ENDED, ...STORE];
    case 'logout':
      return STORE;
  }
}

/** Proves the invariants from what was recorded, or says which call broke which. */
export function check(history: History): Outcome {
  return new Checker(history).verdict();
}

class Checker {
  private readonly violations: Violation[] = [];
  private readonly allowances: string[] = [];
  private readonly calls: Call[];
  private readonly bySession = new Map<string, Call[]>();
  /** The number of a request id, and when it was first asked for. */
  private readonly requests = new Map<string, { number: string; asked: number; shared: boolean }>();
  private readonly pseudonyms = new Map<string, string>();
  private readonly numbers = new Map<string, string>();

  constructor(private readonly history: History) {
    this.calls = [...history.calls].sort((a, b) => a.at - b.at);
    const firstOfKey = new Map<string, number>();
    for (const call of this.calls) {
      for (const session of new Set([call.given?.session, call.got?.session]))
        if (session !== undefined) listOf(this.bySession, session).push(call);
      if (call.op !== 'send' || call.number === undefined) continue;
      const name = call.key === undefined ? undefined : `${call.number} ${call.key}`;
      const asked = name === undefined ? call.at : (firstOfKey.get(name) ?? call.at);
      if (name !== undefined) firstOfKey.set(name, asked);
      if (call.status !== 200 || call.request === undefined) continue;
      this.requests.set(call.request, { number: call.number, asked, shared: call.shared === true });
      this.pseudonyms.set(call.number, partsOf(call.request).pseudonym);
      this.numbers.set(partsOf(call.request).pseudonym, call.number);
    }
  }

  verdict(): Outcome {
    this.everySmsWasAdmitted();
    this.limitsHold();
    this.onlyRightCodesOpenSessions();
    this.oneSessionARequest();
    this.oneAnswerAKey();
    this.attemptsAreFew();
    this.rightCodesAreRight();
    this.endedSessionsStayEnded();
    this.every401HasItsReason();
    this.answersAreDocumentedAndInTime();
    this.redisComesBack();
    return { violations: this.violations, allowances: this.allowances };
  }

  /** `caller`: an SMS for each admission that was not refunded. `provider`: upstream's keys do the same. */
  private everySmsWasAdmitted(): void {
    const { ledger, messages, usage, contract } = this.history;
    const sent = ledger.filter(({ event }) => event === 'sent');
    const refunded = new Set(ledger.flatMap(({ event, sms }) => (event === 'refunded' && sms ? [sms] : [])));
    const cost = sent.filter(({ id }) => !refunded.has(id)).length * this.history.rules.pricePaise;
    if (cost > this.history.rules.budgetPaise)
      this.violate('budget', `${cost} paise were spent of ${this.history.rules.budgetPaise}`, []);
    const refunds = ledger.filter(({ event }) => event === 'refunded').length;
    if (sent.length !== usage.sent || refunds !== usage.refunded) {
      const told = `${usage.sent} sent and ${usage.refunded} refunded`;
      this.violate('usage', `usage says ${told}, the ledger ${sent.length} and ${refunds}`, []);
    }
    for (const number of new Set(messages.map((message) => message.number))) {
      const pseudonym = this.pseudonyms.get(number);
      const its = messages.filter((message) => message.number === number);
      const accepted = contract === 'caller' ? its.length : new Set(its.map(({ key }) => key)).size;
      const paid = sent.filter((event) => event.pseudonym === pseudonym && !refunded.has(event.id)).length;
      if (accepted <= paid) continue;
      const what = `${accepted} SMS were accepted, ${paid} were admitted and not refunded`;
      const lost = its.filter(({ at }) => this.admissionMayBeLost(at)).length;
      if (accepted - paid <= lost) this.allow(`admission: ${what}`);
      else this.violate('admission', `${mask(number)}: ${what}`, this.aboutNumber(number));
    }
    const keys = groupBy(messages, ({ key }) => key);
    for (const [key, its] of keys) {
      if (its.length > 1) {
        const what = `${key} was accepted ${its.length} times`;
        // Under `provider` upstream itself knows the key again.
        if (contract === 'caller' && its.some(({ at }) => this.admissionMayBeLost(at))) this.allow(what);
        else this.violate('upstream key', what, []);
      }
      if (new Set(its.map(({ number }) => number)).size > 1)
        this.violate('upstream key', `${key} went to two numbers`, []);
    }
  }

  /** The ledger has the time of the very step that counted; upstream's times are later by a deadline at most. */
  private limitsHold(): void {
    const { messages, ledger, rules } = this.history;
    const sent = ledger.filter(({ event }) => event === 'sent');
    const overlap = rules.upstreamDeadlineMs + 500;
    const look = (
      name: string,
      limits: Limit[],
      admitted: number[],
      its: History['messages'],
      forgiven: number,
      story: Call[],
    ): void => {
      for (const { count, seconds } of limits) {
        const most = count + forgiven;
        const rule = `${count}/${seconds} of ${name}`;
        // A millisecond for the rounding of Redis's own clock.
        const counted = mostWithin(admitted, seconds * 1_000 - 1);
        if (counted > most) this.violate('limit', `${rule}: ${counted} were admitted`, story);
        const window = seconds * 1_000 - overlap;
        if (window <= 0) continue;
        const times = its.map(({ at }) => at);
        const accepted = mostWithin(times, window);
        if (accepted <= most) continue;
        const certain = mostWithin(
          times.filter((at) => !this.admissionMayBeLost(at)),
          window,
        );
        if (certain <= most) this.allow(`limit ${rule}: ${accepted} were accepted`);
        else this.violate('limit', `${rule}: ${accepted} were accepted`, story);
      }
    };
    const admittedAt = (events: History['ledger']): number[] => events.map(({ at }) => at);
    // The repeat of a send that failed takes its place in the number's limit.
    const moved = new Set(ledger.flatMap(({ event, sms }) => (event === 'refunded' && sms ? [sms] : [])));
    look('the service', rules.service, admittedAt(sent), messages, 0, []);
    for (const [pseudonym, events] of groupBy(sent, (event) => event.pseudonym ?? '')) {
      const number = this.numbers.get(pseudonym) ?? pseudonym;
      const its = messages.filter((message) => message.number === number);
      // What the carrier failed does not count against the person's resends.
      const forgiven = Math.min(FORGIVEN, its.filter(({ failed }) => failed).length);
      const held = events.filter(({ id }) => !moved.has(id));
      look(mask(number), rules.phone, admittedAt(held), its, forgiven, this.aboutNumber(number));
    }
  }

  private onlyRightCodesOpenSessions(): void {
    const opened = new Map<string, { subject: string; number: string }>();
    const subjects = new Map<string, string>();
    for (const call of this.calls) {
      const { op, got, given } = call;
      if (got === undefined) continue;
      if (op === 'verify') {
        const asked = this.requests.get(call.request ?? '');
        const texted = this.texted(asked?.number, call.code, -Infinity, call.until);
        if (asked === undefined || !texted) {
          this.violate('token without a code', `${got.session} was opened by a code that nobody was sent`, [
            call,
          ]);
          continue;
        }
        if (got.number !== asked.number)
          this.violate('another number', `${got.session} is not of the number that was asked for`, [call]);
        opened.set(got.session, { subject: got.subject, number: asked.number });
        const number = subjects.get(got.subject) ?? asked.number;
        subjects.set(got.subject, number);
        if (number !== asked.number)
          this.violate('another number', `subject ${got.subject} has two numbers`, [call]);
        continue;
      }
      const known = opened.get(got.session);
      if (known === undefined) {
        this.violate('token without a code', `${got.session} was never opened`, [call]);
      } else if (got.session !== given?.session || got.subject !== known.subject) {
        this.violate('another session', `a token of ${given?.session} was answered with ${got.session}`, [
          call,
        ]);
      } else if (got.number !== undefined && got.number !== known.number) {
        this.violate('another number', `${got.session} is told another number`, [call]);
      }
    }
  }

  private oneSessionARequest(): void {
    const sessions = new Map<string, Set<string>>();
    const requests = new Map<string, Set<string>>();
    for (const { op, request, got } of this.calls) {
      if (op !== 'verify' || request === undefined || got === undefined) continue;
      setOf(sessions, request).add(got.session);
      setOf(requests, got.session).add(request);
    }
    for (const [request, its] of sessions)
      if (its.size > 1)
        this.violate('one session', `${request} opened ${its.size} sessions`, this.aboutRequest(request));
    for (const [session, its] of requests)
      if (its.size > 1)
        this.violate('one session', `${session} has ${its.size} request ids`, this.aboutSession(session));
  }

  /** A send is answered once under a key, and so is a verification. */
  private oneAnswerAKey(): void {
    const sends = this.calls.filter(
      ({ op, status, key }) => op === 'send' && status === 200 && key !== undefined,
    );
    for (const [name, its] of groupBy(sends, ({ number, key }) => `${number} ${key}`)) {
      if (new Set(its.map(({ request }) => request)).size < 2) continue;
      const [first, last] = [its[0]!, its.at(-1)!];
      const what = `${its.length} sends under one key have several request ids`;
      if (this.mayBeLost(partsOf(first.request!).pseudonym, first.at, last.until))
        this.allow(`one answer: ${what}`);
      else this.violate('one answer', `${mask(name)}: ${what}`, this.aboutNumber(first.number));
    }
  }

  private attemptsAreFew(): void {
    const looked = this.calls.filter(
      ({ op, status, outcome }) => op === 'verify' && (status === 200 || outcome === 'otp_incorrect'),
    );
    for (const [request, its] of groupBy(looked, ({ request }) => request ?? '')) {
      // A repeat under its key is told the same again, and looks at nothing.
      const attempts = new Set(its.map((call, i) => call.key ?? `call ${i}`)).size;
      const { attempts: most } = this.history.rules;
      if (attempts <= most) continue;
      const what = `${attempts} codes of one request were looked at, not ${most}`;
      if (this.mayBeLost(partsOf(request).pseudonym, its[0]!.at, its.at(-1)!.until))
        this.allow(`attempts: ${what}`);
      else this.violate('attempts', what, this.aboutRequest(request));
    }
  }

  /** Who has the phone and types what it shows is told neither that the code is wrong nor, for nothing, that it expired. */
  private rightCodesAreRight(): void {
    for (const call of this.calls) {
      if (call.op !== 'verify' || !['otp_incorrect', 'otp_expired'].includes(call.outcome)) continue;
      const asked = this.requests.get(call.request ?? '');
      if (asked === undefined || asked.shared || call.until - asked.asked > this.history.rules.codeLifeMs / 2)
        continue;
      if (!this.texted(asked.number, call.code, asked.asked, call.at)) continue;
      const said = this.history.looks.filter(
        ({ at, code, accepted }) => code === call.code && !accepted && call.at <= at && at <= call.until,
      );
      // Under `provider` it is upstream's word, which may be a lie, or about a code whose good answer was lost.
      const upstreamSaid = said.some(({ status }) =>
        (call.outcome === 'otp_incorrect' ? [200, 400] : [404, 409, 410]).includes(status),
      );
      if (upstreamSaid) continue;
      // A repeat under the key of the one that used it gets that one's answer.
      const used = this.calls.some(
        (other) =>
          other !== call &&
          other.op === 'verify' &&
          other.code === call.code &&
          (other.key === undefined || other.key !== call.key) &&
          this.requests.get(other.request ?? '')?.number === asked.number &&
          other.at < call.until &&
          mayHaveDone(other),
      );
      // Under `provider` each send is a new code.
      const replaced =
        this.history.contract === 'provider' &&
        this.calls.some(
          (other) =>
            other.op === 'send' &&
            other.number === asked.number &&
            asked.asked < other.at &&
            other.at < call.until &&
            other.request !== call.request &&
            mayHaveDone(other),
        );
      if (call.outcome === 'otp_expired' && (used || replaced)) continue;
      const what = `the right code of ${mask(asked.number)} was answered ${call.outcome}`;
      if (this.mayBeLost(partsOf(call.request!).pseudonym, asked.asked, call.until))
        this.allow(`right code: ${what}`);
      else this.violate('right code', what, this.aboutNumber(asked.number));
    }
  }

  private endedSessionsStayEnded(): void {
    for (const [session, its] of this.bySession) {
      const end = its.find(
        ({ op, status, outcome, given }) =>
          given?.session === session &&
          ((op === 'logout' && status === 204) ||
            outcome === 'refresh_token_reused' ||
            outcome === 'session_revoked'),
      );
      if (end === undefined) continue;
      const after = its.find(({ at, status, op }) => status === 200 && op !== 'logout' && at > end.until);
      if (after === undefined) continue;
      const said = end.op === 'logout' ? 'logged out' : `told ${end.outcome}`;
      this.violate(
        'ended session',
        `${session} was ${said}, and ${after.op} said 200 ${after.at - end.until} ms later`,
        this.aboutSession(session),
      );
    }
  }

  private every401HasItsReason(): void {
    for (const call of this.calls) {
      if (call.status !== 401 || call.given === undefined) continue;
      const { session, subject } = call.given;
      const its = this.bySession.get(session) ?? [];
      if (this.explains(call, its)) continue;
      const opened = its.find(({ op, got }) => op === 'verify' && got?.session === session);
      const rotations = its.filter(({ op, at }) => op === 'refresh' && at < call.at);
      // What is lost stays lost: one that works later was there all the time.
      const works = its.some(
        ({ at, status, given }) => at > call.until && status === 200 && given !== undefined,
      );
      const openingLost =
        ENDED.includes(call.outcome) && opened && !works && this.mayBeLost(subject, opened.at, opened.until);
      // A token one ahead is accepted; nobody can be two ahead unless two rotations were lost.
      const twoLost =
        call.outcome === 'refresh_token_invalid' &&
        rotations.filter(({ at, until }) => this.mayBeLost(subject, at, until)).length >= 2;
      if (openingLost || twoLost) this.allow(`401: ${call.outcome} after a write was lost`);
      else
        this.violate(
          '401',
          `${call.op} of ${session}: ${call.outcome} for nothing`,
          this.aboutSession(session),
        );
    }
  }

  private explains(call: Call, its: Call[]): boolean {
    const before = its.filter((other) => other !== call && other.at < call.until);
    const refreshes = before.filter(({ op, given }) => op === 'refresh' && given?.counter !== undefined);
    const counter = call.given?.counter ?? 0;
    if (call.outcome === 'refresh_token_reused') {
      const newer = refreshes.some(({ given }) => given!.counter! > counter);
      const { graceMs } = this.history.rules;
      return (
        newer || refreshes.some(({ given, at }) => given!.counter === counter && call.until - at > graceMs)
      );
    }
    if (call.outcome === 'unauthenticated') return (call.given?.expires ?? Infinity) <= call.until + 1_000;
    if (!ENDED.includes(call.outcome)) return false;
    if (before.some(({ op }) => op === 'logout')) return true;
    const replayed = refreshes.some((refresh) => {
      const newest = Math.max(
        ...its
          .filter(({ at }) => at < refresh.at)
          .map(({ got, given }) => got?.counter ?? given?.counter ?? 0),
      );
      return refresh.status !== 200 && (refresh.given?.counter ?? 0) < newest;
    });
    return replayed || this.pushedOut(call);
  }

  /** Whether so many sessions of the same person were opened since that this one had to go. */
  private pushedOut(call: Call): boolean {
    const opened = this.bySession.get(call.given?.session ?? '')?.find(({ op }) => op === 'verify');
    const number = this.requests.get(opened?.request ?? '')?.number;
    if (opened === undefined || number === undefined) return false;
    const later = new Set<string>();
    for (const { op, request = '', code, status, at, until } of this.calls) {
      if (op !== 'verify' || until < opened.at || at > call.until || request === opened.request) continue;
      if (
        mayHaveDone({ status }) &&
        this.requests.get(request)?.number === number &&
        this.texted(number, code, -Infinity, until)
      )
        later.add(request);
    }
    return later.size >= this.history.rules.sessionsPerUser;
  }

  private answersAreDocumentedAndInTime(): void {
    const { contract, rules, instanceKills } = this.history;
    for (const call of this.calls) {
      const { op, status, outcome, at, until, instance } = call;
      const asksUpstream = op === 'send' || (op === 'verify' && contract === 'provider');
      const most = asksUpstream ? rules.upstreamMs : rules.storeMs;
      if (until - at > most) this.violate('deadline', `${op} took ${until - at} ms`, [call]);
      if (status === 0) {
        const killed = instanceKills.some(
          (kill) => kill.instance === instance && kill.at <= until && at <= kill.until,
        );
        if (!killed) this.violate('connection', `${op}: ${outcome} from an instance that lived`, [call]);
        continue;
      }
      const good = op === 'logout' ? 204 : 200;
      if (status !== good && !documented(call, contract).includes(outcome))
        this.violate('documented', `${op} was answered ${status} ${outcome}`, [call]);
      if ([409, 429, 503].includes(status) && !call.retryAfter)
        this.violate('documented', `${status} ${outcome} without Retry-After`, [call]);
    }
  }

  private redisComesBack(): void {
    const { failovers, rules } = this.history;
    for (const call of this.calls) {
      if (!refusedByStore(this.history, call)) continue;
      const last = failovers.findLast(({ at }) => at <= call.at + 1_000);
      if (last !== undefined && call.at - last.until <= rules.healMs) continue;
      this.violate('Redis is back', `${call.op} was answered store_unavailable while Redis was well`, [call]);
    }
  }

  /** Whether an SMS with this code was accepted for the number in this time. */
  private texted(number: string | undefined, code: string | undefined, from: number, to: number): boolean {
    return this.history.messages.some(
      (sms) => sms.number === number && sms.code === code && from <= sms.at && sms.at <= to,
    );
  }

  /** Whether something that was written about the tag between the two times may have gone with a killed primary. */
  private mayBeLost(tag: string, from: number, to: number): boolean {
    const shard = this.history.shardOf(tag);
    return this.history.failovers.some(
      ({ kind, at, ...failover }) =>
        kind === 'killed' && failover.shard === shard && from <= at && at - LOST_MS <= to,
    );
  }

  /** An SMS is accepted within the deadline of its send after it was admitted. */
  private admissionMayBeLost(acceptedAt: number): boolean {
    return this.mayBeLost('admission', acceptedAt - this.history.rules.upstreamDeadlineMs, acceptedAt);
  }

  private aboutNumber(number: string | undefined): Call[] {
    return this.calls.filter(
      (call) => call.number === number || this.requests.get(call.request ?? '')?.number === number,
    );
  }

  private aboutRequest(request: string): Call[] {
    return this.calls.filter((call) => call.request === request);
  }

  private aboutSession(session: string): Call[] {
    return this.bySession.get(session) ?? [];
  }

  private allow(what: string): void {
    this.allowances.push(what);
  }

  private violate(rule: string, what: string, calls: Call[]): void {
    this.violations.push({ rule, what, story: story(this.history, calls) });
  }
}

/** The calls in short lines, with the kills and failovers between them. */
export function story(history: History, calls: Call[]): string[] {
  const first = history.calls.reduce((least, { at }) => Math.min(least, at), Infinity);
  const time = (at: number): string => `+${((at - first) / 1_000).toFixed(3)}`;
  const shown = calls.slice(-60);
  const [from, to] = [(shown[0]?.at ?? 0) - 1_000, shown.at(-1)?.until ?? 0];
  const events = [
    ...shown.map((call) => ({ at: call.at, line: `${time(call.at)} ${line(call)}` })),
    ...history.instanceKills.map(({ at, instance }) => ({
      at,
      line: `${time(at)} -- instance ${instance} killed`,
    })),
    ...history.failovers.map(({ at, kind, shard, until }) => ({
      at,
      line: `${time(at)} -- failover of shard ${shard}, ${kind}, over after ${until - at} ms`,
    })),
  ];
  return events
    .filter(({ at }) => from <= at && at <= to)
    .sort((a, b) => a.at - b.at)
    .map((event) => event.line);
}

function line(call: Call): string {
  const { client, op, instance, key, request, code, given, got, number, status, outcome, at, until } = call;
  const token = given && `${given.session}${given.counter === undefined ? '' : `#${given.counter}`}`;
  const parts = {
    number: number && mask(number),
    key,
    request: request?.slice(-6),
    code,
    token,
    got: got && `${got.session}${got.counter === undefined ? '' : `#${got.counter}`}`,
  };
  const told = Object.entries(parts).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  return `${client} i${instance} ${op} ${told.join(' ')} -> ${status} ${outcome} (${until - at} ms)`;
}

/** How long Redis refused somebody after each failover, in milliseconds. */
export function recoveries(history: History): number[] {
  const { failovers, calls } = history;
  return failovers.map(({ at }, i) => {
    const next = failovers[i + 1]?.at ?? Infinity;
    const refused = calls.filter(
      (call) => refusedByStore(history, call) && at <= call.until && call.until < next,
    );
    return refused.reduce((last, { until }) => Math.max(last, until), at) - at;
  });
}

/** An instance that has just been started says so at `/health/ready`; who asks it all the same is told that Redis is away. */
const refusedByStore = ({ instanceKills }: History, { outcome, instance, at }: Call): boolean =>
  outcome === 'store_unavailable' &&
  !instanceKills.some((kill) => kill.instance === instance && kill.at <= at && at <= kill.until);

/** Whether a call had its effect, as far as its answer tells. */
const mayHaveDone = ({ status }: Pick<Call, 'status'>): boolean =>
  status === 200 || status === 0 || status === 409 || status >= 500;

/** The most of these times that lie within one window. */
function mostWithin(times: number[], windowMs: number): number {
  const sorted = [...times].sort((a, b) => a - b);
  let [most, start] = [0, 0];
  sorted.forEach((time, end) => {
    while (time - sorted[start]! > windowMs) start += 1;
    most = Math.max(most, end - start + 1);
  });
  return most;
}

const mask = (number: string): string => number.replace(/^\+91\d{6}/, '…');

function groupBy<T>(list: readonly T[], nameOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of list) listOf(groups, nameOf(item)).push(item);
  return groups;
}

function listOf<T>(map: Map<string, T[]>, name: string): T[] {
  const list = map.get(name) ?? [];
  map.set(name, list);
  return list;
}

function setOf(map: Map<string, Set<string>>, name: string): Set<string> {
  const set = map.get(name) ?? new Set<string>();
  map.set(name, set);
  return set;
}
