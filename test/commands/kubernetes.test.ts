import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { type KubernetesObject, render } from '../support/kustomize';

const FOLDER = join(__dirname, '../../deploy/kubernetes');

/** The version that docs/operations.md asks for, or a newer one. */
function kubectlPresent(): boolean {
  const ended = spawnSync('kubectl', ['version', '--client', '-o', 'json'], { encoding: 'utf8' });
  if (ended.error || ended.status !== 0) return false;
  const [, major, minor] = /"gitVersion": "v(\d+)\.(\d+)/.exec(ended.stdout) ?? [];
  return Number(major) * 1_000 + Number(minor) >= 1_027;
}

const present = kubectlPresent();
const title = present
  ? 'kubectl kustomize renders %s as test/support/kustomize.ts does, on which test/unit/kubernetes.test.ts relies'
  : 'kubectl kustomize cannot render %s here: kubectl 1.27 or newer is not installed';
(present ? test.each : test.skip.each)(['overlays/small', 'overlays/production', 'first-key', 'next-key'])(
  title,
  (name) => {
    const { stdout, stderr } = spawnSync('kubectl', ['kustomize', join(FOLDER, name)], { encoding: 'utf8' });
    expect(stderr).toBe('');
    // Without the hash of its content that the name of a generated ConfigMap ends with.
    const text = stdout.replace(/(otp-login-settings)-[a-z0-9]{10}\b/g, '$1');
    const theirs = parseAllDocuments(text).map((document) => document.toJS() as KubernetesObject);
    const id = ({ kind, metadata }: KubernetesObject) => `${kind} ${metadata.name}`;
    const sorted = (objects: KubernetesObject[]) => [...objects].sort((a, b) => (id(a) < id(b) ? -1 : 1));
    expect(sorted(render(join(FOLDER, name)))).toEqual(sorted(theirs));
  },
);
