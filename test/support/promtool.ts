import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';

const PROMTOOL = process.env.PROMTOOL ?? 'promtool';

/** What promtool prints, and whether it is content. */
export function promtool(
  args: string[],
  files: Record<string, object> = {},
  input = '',
): { ok: boolean; output: string } {
  const folder = mkdtempSync(join(tmpdir(), 'otp-login-promtool-'));
  try {
    for (const [name, content] of Object.entries(files))
      writeFileSync(join(folder, name), stringify(content));
    const ended = spawnSync(PROMTOOL, args, { cwd: folder, encoding: 'utf8', input });
    if (ended.error) throw ended.error;
    return { ok: ended.status === 0, output: `${ended.stdout}${ended.stderr}` };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
