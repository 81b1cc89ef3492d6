import { OtpLoginError } from './errors.js';
import { asciiDigits, toE164 } from './phone.js';
import { sessionStore } from './stores.js';
import type { FlowState, LoginFlow, OtpLogin, Sent, Store } from './types.js';
import { readOtpFromSms } from './web-otp.js';

export type { FlowState, LoginFlow } from './types.js';

/** No code of this request works any more: the user must ask for a new one. */
const OVER = /^otp_(e|a)/;

const ignore = (): void => {};

/**
 * The state machine of a login page. The pending request survives a reload, so a reload never sends an SMS.
 *
 * @example
 * const flow = createLoginFlow(client);
 * flow.subscribe(() => render(flow.state));
 * form.onsubmit = () => flow.send(input.value);
 * code.oninput = () => (code.value = flow.enter(code.value));
 */
export function createLoginFlow(
  client: OtpLogin,
  { store = sessionStore(), key = 'otp-login.pending' }: { store?: Store; key?: string } = {},
): LoginFlow {
  let state: FlowState = { step: 'number' };
  /** Of this code screen: ends its polls and its wait for an SMS. */
  let screen = new AbortController();
  const listeners = new Set<() => void>();

  const save = async (): Promise<void> =>
    state.step === 'code' && !OVER.test(state.error?.code!)
      ? store.set(key, JSON.stringify(state.sent))
      : store.remove(key);
  const put = (next: Partial<FlowState>): void => {
    state = { ...state, ...next };
    save().catch(ignore);
    for (const listener of listeners) listener();
  };
  const set = (next: Partial<FlowState>): void => put({ busy: undefined, error: undefined, ...next });

  const open = async (sent: Sent, { signal } = screen): Promise<void> => {
    set({ step: 'code', sent, phoneNumber: sent.phoneNumber });
    let least = 0;
    for (const seconds of [2, 4, 8, 15, 30]) {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, Math.max(seconds, least) * 1_000);
        signal.addEventListener('abort', () => reject(clearTimeout(timer)));
      });
      const { state: stage, pollAfterSeconds, ...status } = await client.status(sent.requestId, { signal });
      if (signal.aborted) return;
      least = pollAfterSeconds;
      put({ sent: { ...state.sent!, ...status } });
      if (stage !== 'pending' || /^[df]/.test(status.delivery)) return;
    }
  };

  const send = async (phoneNumber: string): Promise<void> => {
    if (state.busy) return;
    set({ busy: 'waiting', phoneNumber });
    screen.abort();
    screen = new AbortController();
    const { signal } = screen;
    // Before the SMS is on its way: a late listener would miss it.
    void readOtpFromSms(signal).then((code) => code && !signal.aborted && flow.enter(code));
    try {
      const sent = await client.sendOtp(phoneNumber, { signal, onChallenge: () => set({ busy: 'solving' }) });
      // A poll is a courtesy: it never disturbs the page, and the first refusal ends it.
      if (!signal.aborted) open(sent).catch(ignore);
    } catch (error) {
      if (!signal.aborted) set({ error: error as OtpLoginError });
    }
  };

  const flow: LoginFlow = {
    get state() {
      return state;
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async send(input) {
      const phoneNumber = toE164(asciiDigits(input));
      if (phoneNumber) await send(phoneNumber);
      else set({ error: new OtpLoginError('validation_failed') });
    },
    resend: () => send(state.phoneNumber!),
    enter(text) {
      const { codeLength } = state.sent!;
      const plain = asciiDigits(text);
      const whole = new RegExp(`\\b\\d{${codeLength}}\\b`).exec(plain);
      const digits = whole?.[0] ?? plain.replace(/\D/g, '').slice(0, codeLength);
      if (digits.length === codeLength) void flow.verify(digits);
      return digits;
    },
    async verify(otpCode) {
      if (state.busy || state.step !== 'code') return;
      const { signal } = screen;
      set({ busy: 'waiting' });
      try {
        const user = await client.verifyOtp(state.sent!, otpCode);
        screen.abort();
        set({ step: 'done', user });
      } catch (thrown) {
        const error = thrown as OtpLoginError;
        if (signal.aborted) return;
        const { attemptsLeft = state.sent!.attemptsLeft } = error;
        set({ error, sent: { ...state.sent!, attemptsLeft } });
      }
    },
    change() {
      screen.abort();
      set({ step: 'number' });
    },
    stop: () => screen.abort(),
  };

  void (async () => {
    const sent = JSON.parse((await store.get(key)) ?? 'null') as Sent | null;
    if (sent && sent.expiresAt > Date.now() && state.step === 'number' && !state.busy) await open(sent);
  })().catch(ignore);
  return flow;
}
