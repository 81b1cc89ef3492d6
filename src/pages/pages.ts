import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Injectable } from '@nestjs/common';
import { Config, type OAuthClient } from '../config/config';
import type { Logo } from '../config/read-pages';
import { isLoopback } from '../net/addresses';
import { PageFiles, type PageFile } from './page-files';

export type PageName = 'login' | 'account' | 'logout';
/** Where the login page leads after the login: nowhere, to an address that may be led to, or to one that may not. */
export type Return = { kind: 'none' } | { kind: 'allowed'; url: string } | { kind: 'refused' };
/** The login page of an app, which bears the app's name. */
export interface Authorize {
  kind: 'authorize';
  client: OAuthClient;
}

const STATIC = join(__dirname, 'static');
const TEMPLATE = /<template id="(\w+)">.*?<\/template>/gs;
/** The templates that each page uses. */
const SCREENS: Record<PageName, string[]> = {
  login: ['refused', 'known', 'number', 'code', 'done'],
  account: ['account', 'session'],
  logout: ['refused', 'logout', 'loggedOut'],
};

/** The login page and the account page: one HTML file, filled at the start for each page. */
@Injectable()
export class Pages {
  readonly files = new PageFiles(STATIC);
  private readonly html: Record<PageName, string>;
  private readonly languages: Map<string, PageFile>;
  private readonly logo: PageFile | undefined;
  /** By client; the operator's where a client has none. */
  private readonly logos = new Map<string, PageFile | undefined>();

  constructor(private readonly config: Config) {
    const texts = PageFiles.languages(join(__dirname, 'languages'));
    this.languages = new Map([...texts].map(([tag, bytes]) => [tag, this.files.add(tag, 'json', bytes)]));
    const titles = new Map(
      [...texts].map(([tag, bytes]) => [
        tag,
        (JSON.parse(bytes.toString()) as { language: string }).language,
      ]),
    );
    const style = this.files.add('page', 'css', Buffer.from(this.style()));
    this.logo = this.addLogo(config.loginLogo);
    for (const { id, logo } of config.oauthClients) this.logos.set(id, this.addLogo(logo) ?? this.logo);
    const template = readFileSync(join(STATIC, 'page.html'), 'utf8').replace(/>\n\s*</g, '><');
    const fill = (page: PageName): string => {
      const script = this.files.addModule(`${page}.js`);
      const head = [
        `<link rel="stylesheet" href="{{root}}pages/${style.name}">`,
        ...script.imports.map((name) => `<link rel="modulepreload" href="{{root}}pages/${name}">`),
        `<script type="module" src="{{root}}pages/${script.name}"></script>`,
        ...[...this.languages].map(
          ([tag, { name }]) =>
            `<link rel="alternate" hreflang="${tag}" title="${escape(titles.get(tag) ?? tag)}" href="{{root}}pages/${name}">`,
        ),
      ];
      const links = [
        [config.loginPrivacyUrl, 'privacy'],
        [config.loginTermsUrl, 'terms'],
      ].flatMap(([url, key]) =>
        url === undefined ? [] : [`<a href="${escape(url)}" rel="noopener" data-text="${String(key)}"></a>`],
      );
      return fillIn(
        template.replace(TEMPLATE, (whole, id: string) => (SCREENS[page].includes(id) ? whole : '')),
        {
          head: head.join(''),
          links: links.join(''),
        },
      );
    };
    this.html = { login: fill('login'), account: fill('account'), logout: fill('logout') };
  }

  /** The page for a browser with these languages. `root`: the way from the page to the service. */
  render(page: PageName, to: Return | Authorize, acceptLanguage = '', root = ''): string {
    const language = this.bestLanguage(acceptLanguage);
    const texts = this.languages.get(language);
    const data = dataOf(to);
    const client = to.kind === 'authorize' ? to.client : undefined;
    const image = client === undefined ? this.logo : this.logos.get(client.id);
    const preload =
      texts === undefined
        ? ''
        : `<link rel="preload" as="fetch" crossorigin href="${root}pages/${texts.name}">`;
    const appName = client?.name ?? this.config.loginAppName;
    const values = {
      language,
      data,
      root,
      appName: escape(appName),
      logo:
        image === undefined
          ? `<span class="mark" aria-hidden="true">${escape(String.fromCodePoint(appName.codePointAt(0) ?? 0x20))}</span>`
          : `<img src="${root}pages/${image.name}" alt="" width="32" height="32">`,
    };
    return fillIn(this.html[page], values).replace('</head>', () => `${preload}</head>`);
  }

  /**
   * Where `?return=` may lead: a web address of one of LOGIN_RETURN_ORIGINS, without user information. The browser's own
   * parser decides, so `https://app.example@evil.example`, `\\\\evil.example` and `https:evil.example` are what they are to it.
   */
  returnOf(given: unknown): Return {
    if (given === undefined || given === '') return { kind: 'none' };
    // An open redirect would lend this page's good name to a phishing page. Two values could be read in two ways.
    if (typeof given !== 'string' || !/^https?:\/\/[^/\\][^\\]*$/i.test(given) || !URL.canParse(given)) {
      return { kind: 'refused' };
    }
    const { protocol, hostname, origin, username, password, href } = new URL(given);
    const safe = protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname));
    const allowed =
      this.config.loginReturnOrigins.includes(origin) ||
      // The demo and tests: applications of the developer's own machine.
      (!this.config.production && this.config.allowsOrigin(origin));
    return safe && allowed && username === '' && password === ''
      ? { kind: 'allowed', url: href }
      : { kind: 'refused' };
  }

  private addLogo(logo: Logo | undefined): PageFile | undefined {
    return logo && this.files.add('logo', logo.type === 'image/png' ? 'png' : 'svg', logo.bytes);
  }

  private bestLanguage(acceptLanguage: string): string {
    const wanted = acceptLanguage.split(',').map((part) => part.trim().toLowerCase().split(/[-;]/)[0] ?? '');
    return wanted.find((tag) => this.languages.has(tag)) ?? 'en';
  }

  private style(): string {
    const { loginAccent: accent } = this.config;
    const css = readFileSync(join(STATIC, 'page.css'), 'utf8')
      .replace(/\/\*.*?\*\//gs, '')
      .replace(/\s+/g, ' ')
      .replace(/ ?([{};,]) ?|(:) /g, '$1$2')
      .replace(/;\}/g, '}');
    if (accent === undefined) return css;
    const dark = `@media (prefers-color-scheme: dark){:root{--accent:${accent.dark}}}`;
    return `${css}:root{--accent:${accent.light}}${dark}`;
  }
}

function dataOf(to: Return | Authorize): string {
  if (to.kind === 'allowed') return `data-return="${escape(to.url)}"`;
  if (to.kind === 'refused') return 'data-refused';
  // The page sends it back: a login that is older than this page does not count where the app asked for a new one.
  return to.kind === 'authorize' ? `data-authorize="${String(Date.now())}"` : '';
}

/** Replaces placeholders; one that is not given stays for the next step. */
function fillIn(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/\{\{(\w+)\}\}/g, (placeholder, name: string) => values[name] ?? placeholder);
}

/** For text and quoted attributes: a name of the operator's or an address of the caller's never becomes markup. */
function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${String(character.charCodeAt(0))};`);
}
