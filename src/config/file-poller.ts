const POLL_EVERY_MS = 2_000;

/**
 * Reads files every two seconds. A new content is used only after two reads in a row return it, because a half-written file
 * could also look valid. Files are read and not watched: Kubernetes swaps a symlink two folders up, which watchers do not
 * notice, and network file systems send no events.
 */
export class FilePoller<Content> {
  private last: string | undefined;
  private timer: NodeJS.Timeout | undefined;

  /** @param first the content that was read at the start */
  constructor(
    private readonly read: () => Content,
    private readonly fingerprintOf: (content: Content) => string,
    first: Content,
  ) {
    this.last = fingerprintOf(first);
  }

  /**
   * Reads the files now.
   * @returns the content, or undefined when the read before returned another one
   * @throws the error of `read`; the next content is then used after two more reads
   */
  poll(): Content | undefined {
    const before = this.last;
    this.last = undefined;
    const content = this.read();
    this.last = this.fingerprintOf(content);
    return this.last === before ? content : undefined;
  }

  /** Calls `poll` every two seconds until {@link stop}. `poll` must not throw, because that would end the process. */
  start(poll: () => void): void {
    this.timer = setInterval(poll, POLL_EVERY_MS).unref();
  }

  stop(): void {
    clearInterval(this.timer);
  }
}
