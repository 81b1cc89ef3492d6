import { createLoginFlow, type FlowState } from '@otp-login/client/flow';
import { toE164, type EndCode, type OtpLoginError, type User } from '@otp-login/client';
import { client, find, plural, service, show, spaced, start, text, textOf, timeOf } from './page.js';

const { dataset } = document.documentElement;
/** The address to go back to, which the service has checked: the script never reads it from the page's own address. */
const back = dataset.return;
/** An app asked for the login: it goes back there by the service's own answer. */
const authorizing = dataset.authorize !== undefined;
const flow = createLoginFlow(client);
/** Why the account page led here. */
let ended = location.hash.slice(1) as EndCode | '';
let known: User | undefined;
let screen = '';
let shownError: OtpLoginError | undefined;
/** When a refusal for too many requests is over. */
let retryAt = 0;
let announced = '';

const hidden = (phoneNumber: string): string =>
  phoneNumber.replace(/^\+91\d{7}(\d{3})$/, '+91\u00a0•••••\u00a0••$1');

function render(): void {
  const { state } = flow;
  const first = state.step === 'number' && known ? 'known' : state.step;
  const name = dataset.refused === undefined ? first : 'refused';
  if (screen !== name) open(name, state);
  if (name === 'number' || name === 'code') update(state);
}

function open(name: string, { phoneNumber, sent, user }: FlowState): void {
  // A change of the language makes the same screen anew.
  const typed = document.querySelector('input')?.value;
  const again = screen === `${name} again`;
  screen = name;
  show(name);
  announced = '';
  shownError = undefined;
  if (name === 'known' && known) {
    find('continue').textContent = text('continueAs', { number: hidden(known.phoneNumber) });
    find('continue').onclick = leave;
    find('other').onclick = () => {
      known = undefined;
      render();
    };
  }
  const input = document.querySelector('input');
  if (name === 'number' && input) {
    input.value = (again && typed) || (phoneNumber?.slice(3) ?? '');
    if (/^(not_|ref|ses)/.test(ended)) find('notice').textContent = textOf({ code: ended as EndCode });
    ended = '';
    onSubmit(() => void flow.send(input.value));
    input.oninput = () => {
      if (input.getAttribute('aria-invalid')) showError('');
    };
    // Not while the user types, and not when the user presses the button: a message would move the button away.
    input.onblur = ({ relatedTarget }) => {
      if (input.value && !toE164(input.value) && relatedTarget !== find('submit')) {
        showError(textOf({ code: 'validation_failed' }, 'number'), false);
      }
    };
  }
  if (name === 'code' && input && sent) {
    input.value = (again && typed) || '';
    input.style.setProperty('--length', String(sent.codeLength));
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
  }
  input?.focus();
  if (name === 'done' && user) {
    find('who').textContent =
      back || authorizing ? text('returning') : text('doneLead', { number: spaced(user.phoneNumber) });
    document.querySelector('h1')?.focus();
    if (back || authorizing) leave();
  }
}

/** The parts of the form that change while it is open, so that the field keeps its text and the focus. */
function update({ busy, error, sent, step }: FlowState): void {
  const button = find<HTMLButtonElement>('submit');
  button.disabled = busy !== undefined;
  const [idle, working] =
    step === 'code' ? (['logIn', 'loggingIn'] as const) : (['send', 'sending'] as const);
  button.textContent = text(busy === 'solving' ? 'solving' : busy ? working : idle);
  if (error !== shownError) {
    shownError = error;
    retryAt = error?.status === 429 ? Date.now() + (error.retryAfterSeconds ?? 0) * 1_000 : 0;
    showError(error ? textOf(error, step === 'code' ? 'code' : 'number') : '');
    if (error?.code === 'otp_incorrect') find<HTMLInputElement>('otp').select();
  }
  if (step === 'code' && sent) {
    find('delivery').textContent = text(`delivery.${sent.delivery}`);
    find('until').textContent = text('worksUntil', { time: timeOf(sent.expiresAt) });
  }
  tick();
}

function showError(message: string, focus = true): void {
  const input = document.querySelector('input');
  find('error').textContent = message;
  if (message) {
    input?.setAttribute('aria-invalid', 'true');
    if (focus) input?.focus();
  } else input?.removeAttribute('aria-invalid');
}

/** The countdowns: shown every second, and announced to screen readers every ten. */
function tick(): void {
  const { step, sent, busy } = flow.state;
  const now = Date.now();
  if (retryAt && shownError && (screen === 'number' || screen === 'code')) {
    const retryAfterSeconds = Math.ceil((retryAt - now) / 1_000);
    if (retryAfterSeconds <= 0) {
      retryAt = 0;
      showError('');
    } else if (retryAfterSeconds % 10 === 0 && retryAfterSeconds < 120) {
      find('error').textContent = textOf({ code: shownError.code, retryAfterSeconds } as OtpLoginError);
    }
  }
  if (screen !== 'code' || step !== 'code' || !sent) return;
  if (sent.expiresAt < now && !shownError)
    showError((shownError = { code: 'otp_expired' } as OtpLoginError) && text('error.expired'));
  const left = sent.delivery === 'failed' ? 0 : Math.ceil((sent.resendAt - now) / 1_000);
  const again = find<HTMLButtonElement>('again');
  const words = left > 0 ? plural('sendAgainIn', left) : '';
  again.textContent = text('sendAgain');
  again.hidden = left > 0;
  again.disabled = busy !== undefined;
  find('countdown').textContent = words;
  if (left % 10 === 0 || !announced) find('announced').textContent = announced = words || ' ';
}

function onSubmit(submit: () => void): void {
  document.querySelector('form')?.addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
}

function leave(): void {
  if (authorizing) return void goBack();
  // The referrer tells the application that the user has just logged in here: only the origin, never the page.
  const link = document.createElement('a');
  link.referrerPolicy = 'origin';
  link.href = back ?? service + 'account';
  link.click();
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Back to the app, or to the form if the login is not enough for it: it has ended, or the app asked for a new one. */
async function goBack(): Promise<void> {
  const { authorize } = await import('./authorize.js');
  const result = await authorize();
  if (result === 'refused') dataset.refused = '';
  if (result === 'login' && flow.state.step === 'done') flow.change();
  if (result !== 'gone') render();
}

const knowing = client.login().then(async (login) => {
  if (authorizing) return goBack();
  if (login.state === 'in') known = login.user;
});
// A known user does not see the form first, unless the service takes long to answer.
void Promise.race([knowing, wait(700)]).then(async () => {
  await start(() => {
    screen += ' again';
    render();
  });
  flow.subscribe(render);
  setInterval(tick, 1_000);
  render();
  await knowing;
  if (!document.querySelector('input')?.value && !flow.state.busy) render();
});
