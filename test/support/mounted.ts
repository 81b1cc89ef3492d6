import {
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A Secret as the kubelet mounts it: every file is a link through `..data`, which is a link to a folder of the time. A
 * change is a new folder, and one swapped link.
 */
export class Mounted {
  readonly folder = mkdtempSync(join(tmpdir(), 'otp-login-mounted-'));
  private entries: Record<string, string> = {};
  private linked: string[] = [];
  private version = 0;

  path(name: string): string {
    return join(this.folder, name);
  }

  /** The whole Secret from now on. `stay`: the kubelet has not yet removed the links of entries that are gone. */
  put(entries: Record<string, string>, { links = 'removed' }: { links?: 'removed' | 'stay' } = {}): void {
    const [data, previous] = [
      this.path('..data'),
      this.linked.length > 0 ? readlinkSync(this.path('..data')) : '',
    ];
    const next = `..2026_01_01_00_00_00.${(this.version += 1)}`;
    mkdirSync(this.path(next));
    for (const [name, text] of Object.entries(entries)) writeFileSync(join(this.path(next), name), text);
    symlinkSync(next, `${data}_tmp`);
    renameSync(`${data}_tmp`, data);
    const names = Object.keys(entries);
    for (const name of names) {
      if (!this.linked.includes(name)) symlinkSync(join('..data', name), this.path(name));
    }
    if (links === 'removed')
      for (const name of this.linked) if (!names.includes(name)) rmSync(this.path(name), { force: true });
    if (previous) rmSync(this.path(previous), { recursive: true });
    [this.entries, this.linked] = [entries, names];
  }

  /** As `kubectl patch`: these entries, and the others as they are. */
  patch(entries: Record<string, string>): void {
    this.put({ ...this.entries, ...entries });
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
