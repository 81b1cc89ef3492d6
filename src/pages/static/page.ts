import { createOtpLogin, type OtpLogin, type OtpLoginError } from '@otp-login/client';
import type en from '../languages/en.json';

export type Texts = typeof en;
interface Plural {
  one: string;
  other: string;
}
type Key = { [Name in keyof Texts]: Texts[Name] extends string ? Name : never }[keyof Texts];
type PluralKey = { [Name in keyof Texts]: Texts[Name] extends Plural ? Name : never }[keyof Texts];

const CHOICE = 'otp-login.language';
const root = document.documentElement;
let texts: Texts;
let language = 'en';

/** The service, also behind a proxy that serves it under a path: this script lies in its folder `pages/`. */
export const service = new URL('..', import.meta.url).href;

export const client: OtpLogin = createOtpLogin({
  url: service,
  delivery: 'cookie',
});

export const text = (key: Key, values: Record<string, string> = {}): string =>
  texts[key].replace(/\{(\w+)\}/g, (_, name: string) => values[name] ?? '');

export const plural = (key: PluralKey, count: number): string => {
  const rule = new Intl.PluralRules(language).select(count);
  return texts[key][rule === 'one' ? 'one' : 'other'].replace(
    '{count}',
    new Intl.NumberFormat(language).format(count),
  );
};

export const timeOf = (time: number | string, more: Intl.DateTimeFormatOptions = {}): string =>
  new Intl.DateTimeFormat(language, { hour: 'numeric', minute: '2-digit', ...more }).format(new Date(time));

export const spaced = (phoneNumber: string): string =>
  phoneNumber.replace(/^\+91(\d{5})(\d{5})$/, '+91\u00a0$1\u00a0$2');

// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the caller knows what the template holds
export const find = <E extends HTMLElement = HTMLElement>(id: string): E => document.getElementById(id) as E;

/** Fills the place of the screen from its template, in the chosen language. */
export function show(name: string, place: Element = find('main')): void {
  place.replaceChildren(filled(name));
  place.removeAttribute('aria-busy');
  document.title = place.querySelector('h1')?.textContent ?? document.title;
}

export function filled(name: string): DocumentFragment {
  const screen = find<HTMLTemplateElement & HTMLElement>(name).content.cloneNode(true) as DocumentFragment;
  for (const element of screen.querySelectorAll<HTMLElement>('[data-text]')) {
    element.textContent = text(element.dataset.text as Key, { app: root.dataset.app ?? '' });
  }
  return screen;
}

/** What the user can do about an error. `field`: what the user had entered. */
export function textOf(
  error: Pick<OtpLoginError, 'code'>,
  field: 'number' | 'code' | 'none' = 'none',
): string {
  const { code, attemptsLeft = 0, retryAfterSeconds = 0, requestId = '' } = error as Partial<OtpLoginError>;
  switch (code) {
    case 'offline':
    case 'aborted':
      return text('error.offline');
    case 'validation_failed':
      return field === 'code'
        ? plural('code', 6)
        : field === 'number'
          ? text('error.number')
          : text('error.fault', { id: requestId });
    case 'phone_number_rejected':
      return text('error.numberRejected');
    case 'otp_incorrect':
      return plural('error.incorrect', attemptsLeft);
    case 'otp_expired':
      return text('error.expired');
    case 'otp_attempts_exhausted':
      return text('error.exhausted');
    case 'phone_locked':
    case 'rate_limited':
      return retryAfterSeconds < 120
        ? plural('error.waitSeconds', Math.max(1, retryAfterSeconds))
        : text('error.waitUntil', { time: timeOf(Date.now() + retryAfterSeconds * 1_000) });
    case 'challenge_required':
    case 'challenge_unsolved':
      return text('error.unsolved');
    case 'sms_unavailable':
      return text('error.sms');
    case 'not_logged_in':
    case 'unauthenticated':
    case 'refresh_token_invalid':
    case 'session_expired':
      return text('error.loggedOut');
    case 'session_revoked':
      return text('error.revoked');
    case 'refresh_token_reused':
      return text('error.reused');
    case 'idempotency_in_progress':
    case 'store_unavailable':
    case 'overloaded':
    case 'internal_error':
    case 'upstream_timeout':
    case 'upstream_unavailable':
    case 'unexpected_answer':
      return text('error.trouble');
    default:
      return text('error.fault', { id: requestId });
  }
}

/** Loads the texts: `ui_locales`, then the user's choice, then the browser's languages, then English. */
export async function start(render: () => void): Promise<void> {
  const links = [...document.querySelectorAll<HTMLLinkElement>('link[hreflang]')];
  const available = (wanted: string | null): HTMLLinkElement | undefined =>
    links.find((link) => link.hreflang === wanted?.split('-')[0]?.toLowerCase());
  const wanted = [
    ...(new URLSearchParams(location.search).get('ui_locales') ?? '').split(' '),
    chosen(),
    ...navigator.languages,
  ];
  const use = async (link: HTMLLinkElement): Promise<void> => {
    texts = (await (await fetch(link.href)).json()) as Texts;
    language = link.hreflang;
    root.lang = language;
    root.dir = texts.direction;
    for (const element of document.querySelectorAll<HTMLElement>('footer [data-text]')) {
      element.textContent = text(element.dataset.text as Key);
    }
    find('languages').replaceChildren(
      ...links
        .filter((other) => other !== link)
        .map((other) => {
          const button = document.createElement('button');
          button.className = 'link';
          button.lang = other.hreflang;
          button.textContent = other.title;
          button.onclick = () => {
            choose(other.hreflang);
            void use(other);
          };
          return button;
        }),
    );
    render();
  };
  await use(wanted.map(available).find((link) => link) ?? available('en')!);
}

function chosen(): string | null {
  try {
    return localStorage.getItem(CHOICE);
  } catch {
    return null;
  }
}

function choose(tag: string): void {
  try {
    localStorage.setItem(CHOICE, tag);
  } catch {
    // The choice lives as long as the page.
  }
}
