import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { Account } from './account';
import type { Faults } from './faults';

const SHOWN = 200;

/** The phone on the desk: a page that shows every SMS as it arrives, over server-sent events. */
export class Inbox {
  private readonly followers = new Set<ServerResponse>();
  private readonly page: string;
  private lastSent = '';
  private clock: NodeJS.Timeout | undefined;
  private announced = false;

  constructor(
    private readonly account: Account,
    private readonly faults: Faults,
    serviceOrigin: string,
  ) {
    // An origin holds nothing that HTML or the script would read as its own.
    this.page = readFileSync(join(__dirname, 'inbox.html'), 'utf8')
      .replaceAll('http://localhost:3000', serviceOrigin)
      .replaceAll('localhost:3000', serviceOrigin.replace(/^http:\/\//, ''));
  }

  showPage(response: ServerResponse): void {
    const policy = [
      "default-src 'none'",
      `script-src ${this.hashOf('script')}`,
      `style-src ${this.hashOf('style')}`,
      "connect-src 'self'",
      'img-src data:',
      "base-uri 'none'",
      "form-action 'none'",
      // Clickjacking: no other page may show this one, with its copy buttons, in a frame.
      "frame-ancestors 'none'",
    ];
    response.writeHead(200, {
      'Content-Type': 'text/html; charset=utf-8',
      'Content-Security-Policy': policy.join('; '),
      'Referrer-Policy': 'no-referrer',
    });
    response.end(this.page);
  }

  /** Sends everything now, and again whenever it changed. */
  follow(response: ServerResponse): void {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(event(this.snapshot()));
    this.followers.add(response);
    // The status of an SMS changes by itself, so the clock looks too.
    this.clock ??= setInterval(() => {
      this.publish();
    }, 1000).unref();
    response.on('close', () => {
      this.followers.delete(response);
      if (this.followers.size > 0) return;
      clearInterval(this.clock);
      this.clock = undefined;
    });
  }

  /** Tells the followers soon; a burst of changes is told once. */
  changed(): void {
    if (this.announced || this.followers.size === 0) return;
    this.announced = true;
    setTimeout(() => {
      this.announced = false;
      this.publish();
    }, 50).unref();
  }

  private publish(): void {
    const snapshot = this.snapshot();
    if (snapshot === this.lastSent) return;
    this.lastSent = snapshot;
    for (const follower of this.followers) follower.write(event(snapshot));
  }

  private snapshot(): string {
    const messages = this.account.messages.slice(-SHOWN).reverse();
    return JSON.stringify({ messages, settings: this.account.settings, faults: this.faults.list() });
  }

  // The one script and the one style of the page run because of their hash. Injected ones do not.
  private hashOf(tag: 'script' | 'style'): string {
    const content = this.page.split(`<${tag}>`)[1]?.split(`</${tag}>`)[0] ?? '';
    return `'sha256-${createHash('sha256').update(content).digest('base64')}'`;
  }
}

function event(data: string): string {
  return `data: ${data}\n\n`;
}
