import { readFileSync } from 'node:fs';
import { isLoopback } from '../net/addresses';
import { webOrigin } from './addresses';
import { listOf, matching, trueOrFalse, type Rule } from './rules';
import type { Settings } from './settings';

/** An image for the head of the pages. */
export interface Logo {
  readonly type: 'image/svg+xml' | 'image/png';
  readonly bytes: Buffer;
}

/** The colour of buttons and links, in the light and in the dark scheme. */
export interface Accent {
  readonly light: string;
  readonly dark: string;
}

const LOGO_BYTES = 20 * 1024;
const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** The background of the card and the text of buttons, of src/pages/static/page.css. */
const CARD = { light: '#ffffff', dark: '#161e1c' };
const ON_ACCENT = { light: '#ffffff', dark: '#08201d' };
/** WCAG 2.2, success criterion 1.4.3. */
const CONTRAST = 4.5;

export const logoFile: Rule<Logo> = {
  expected: 'the path of a readable SVG or PNG file of at most 20 KB',
  read(path) {
    let bytes: Buffer;
    try {
      bytes = readFileSync(path);
    } catch {
      return undefined;
    }
    if (bytes.length > LOGO_BYTES) return undefined;
    if (bytes.subarray(0, PNG.length).equals(PNG)) return { type: 'image/png', bytes };
    return /<svg[\s>]/.test(bytes.toString()) ? { type: 'image/svg+xml', bytes } : undefined;
  },
};

const publicAddress: Rule<string> = {
  expected: 'an https URL (http on this machine)',
  read(text) {
    if (!URL.canParse(text)) return undefined;
    const { protocol, hostname, username, password } = new URL(text);
    const safe = protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname));
    // Among others this refuses `javascript:`, which a link would run.
    return safe && username === '' && password === '' ? text : undefined;
  },
};

/** The login and account pages: whether they are on, where they may lead back to, and their brand. */
export function readPages(settings: Settings, corsOrigins: readonly string[]) {
  const accent = settings.optional('LOGIN_ACCENT', matching(/^#[\da-f]{6}$/i, 'a colour such as #0f766e'));
  const loginAccent = accent === undefined ? undefined : { light: accent, dark: mixedWithWhite(accent) };
  settings.require(
    loginAccent === undefined || isLegible(loginAccent),
    'LOGIN_ACCENT',
    'has a contrast under 4.5:1 in the light or the dark scheme: choose a darker or a brighter colour',
  );
  return {
    loginPage: settings.withDefault('LOGIN_PAGE', trueOrFalse, !settings.production),
    loginReturnOrigins: settings.withDefault('LOGIN_RETURN_ORIGINS', listOf(webOrigin), corsOrigins),
    loginAppName: settings.withDefault(
      'LOGIN_APP_NAME',
      matching(/^[^\p{C}\p{Zl}\p{Zp}]{1,40}$/u, '1 to 40 characters without control characters'),
      'otp-login',
    ),
    loginLogo: settings.optional('LOGIN_LOGO_FILE', logoFile),
    loginAccent,
    loginPrivacyUrl: settings.optional('LOGIN_PRIVACY_URL', publicAddress),
    loginTermsUrl: settings.optional('LOGIN_TERMS_URL', publicAddress),
  };
}

function isLegible(accent: Accent): boolean {
  return (['light', 'dark'] as const).every((scheme) =>
    [CARD, ON_ACCENT].every((colours) => contrast(accent[scheme], colours[scheme]) >= CONTRAST),
  );
}

/** On a dark card the same colour would be too dark to read. */
function mixedWithWhite(colour: string): string {
  const mixed = channels(colour).map((value) => Math.round(value + (255 - value) * 0.5));
  return `#${mixed.map((value) => value.toString(16).padStart(2, '0')).join('')}`;
}

function contrast(one: string, other: string): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

/** WCAG 2.2, relative luminance. */
function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = channels(colour).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

const channels = (colour: string): number[] =>
  [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
