import { createLoginFlow, type FlowState } from '@otp-login/client/flow';
import type { User } from '@otp-login/client';
import { client, find, plural, show, spaced, start, text, textOf, timeOf } from './page.js';

/** The address to go back to, which the service has checked: the script never reads it from the page's own address. */
const back = document.documentElement.dataset.return;
const flow = createLoginFlow(client);
let known: User | undefined;
let screen = '';
let shownError: unknown;
/** The `resendAt` that the timer of the screen counts to. */
let announcedAt = -1;

const hidden = (phoneNumber: string): string =>
  phoneNumber.replace(/^\+91\d{7}(\d{3})$/, '+91\u00a0•••••\u00a0••$1');

function render(): void {
  const { state } = flow;
  const name =
    document.documentElement.dataset.refused !== undefined
      ? 'refused'
      : state.step === 'number' && known
        ? 'known'
        : state.step;
  const opened = screen !== name;
  screen = name;
  if (opened) open(name, state);
  if (name === 'number' || name === 'code') update(state);
}

function open(name: string, { phoneNumber, sent, user }: FlowState): void {
  show(name);
  announcedAt = -1;
  shownError = undefined;
  if (name === 'known' && known) {
    const one = find('continue');
    one.textContent = text('continueAs', { number: hidden(known.phoneNumber) });
    one.onclick = leave;
    find('other').onclick = () => {
      known = undefined;
      render();
    };
  }
  if (name === 'number') {
    const input = find<HTMLInputElement>('phone');
    input.value = phoneNumber?.slice(3) ?? '';
    onSubmit(() => void flow.send(input.value));
    input.oninput = () => {
      if (input.getAttribute('aria-invalid')) showError('');
    };
    input.focus();
  }
  if (name === 'code' && sent) {
    const input = find<HTMLInputElement>('otp');
    find('sent').textContent = text('sentTo', { number: spaced(sent.phoneNumber) });
    find('otp-label').textContent = plural('code', sent.codeLength);
    input.oninput = () => {
      input.value = flow.enter(input.value);
    };
    onSubmit(() => {
      if (input.value.length === flow.state.sent?.codeLength) void flow.verify(input.value);
      else input.focus();
    });
    find('change').onclick = () => flow.change();
    find('again').onclick = () => {
      input.value = '';
      void flow.resend();
    };
    input.focus();
  }
  if (name === 'done' && user) {
    find('who').textContent = back
      ? text('returning')
      : text('doneLead', { number: spaced(user.phoneNumber) });
    document.querySelector('h1')?.focus();
    if (back) leave();
  }
}

/** The parts of the form that change while it is open, so that the field keeps its text and the focus. */
function update({ busy, error, sent, step }: FlowState): void {
  const button = find<HTMLButtonElement>('submit');
  button.disabled = busy !== undefined;
  const idle = step === 'code' ? 'logIn' : 'send';
  const working = step === 'code' ? 'loggingIn' : 'sending';
  button.textContent = text(busy === 'solving' ? 'solving' : busy ? working : idle);
  if (error !== shownError) {
    shownError = error;
    showError(error ? textOf(error, step === 'code' ? 'code' : 'number') : '');
  }
  if (step !== 'code' || !sent) return;
  find('delivery').textContent = text(`delivery.${sent.delivery}`);
  find('until').textContent = text('worksUntil', { time: timeOf(sent.expiresAt) });
  if (error?.code === 'otp_incorrect') find<HTMLInputElement>('otp').select();
  tick();
}

function showError(message: string): void {
  const input = document.querySelector('input');
  find('error').textContent = message;
  if (!message) input?.removeAttribute('aria-invalid');
  else {
    input?.setAttribute('aria-invalid', 'true');
    input?.focus();
  }
}

/** The countdown: shown every second, and announced to screen readers every ten. */
function tick(): void {
  const { step, sent, busy } = flow.state;
  if (step !== 'code' || !sent || screen !== 'code') return;
  const left = sent.delivery === 'failed' ? 0 : Math.ceil((sent.resendAt - Date.now()) / 1_000);
  const again = find<HTMLButtonElement>('again');
  const words = plural('sendAgainIn', Math.max(1, left));
  again.textContent = text('sendAgain');
  again.hidden = left > 0;
  again.disabled = busy !== undefined;
  find('countdown').textContent = left > 0 ? words : '';
  const step10 = Math.ceil(left / 10);
  if (step10 !== announcedAt) {
    announcedAt = step10;
    find('announced').textContent = left > 0 ? words : text('sendAgain');
  }
}

function onSubmit(submit: () => void): void {
  const form = document.querySelector('form');
  form?.addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
}

function leave(): void {
  // The referrer tells the application that the user has just logged in here: only the origin, never the page.
  const link = document.createElement('a');
  link.referrerPolicy = 'origin';
  link.href = back ?? 'account';
  link.click();
}

setInterval(tick, 1_000);
void start(() => {
  // Also after a change of the language: the screen is made anew, and the flow stands where it stood.
  screen = '';
  render();
}).then(async () => {
  flow.subscribe(render);
  const login = await client.login();
  if (login.state === 'in') {
    known = login.user;
    if (flow.state.step === 'number' && !flow.state.busy && !find<HTMLInputElement>('phone')?.value) render();
  }
});
