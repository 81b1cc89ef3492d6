// Writes the digest of the base image into the Dockerfile: `node tools/image/pin-base.mjs`. A tag can be moved to another image,
// and a digest cannot. The digest comes from the registry and is computed from what the registry sends; where no registry answers,
// nothing is changed. `--registry` and `--dockerfile` name others than Docker Hub and the Dockerfile of the checkout.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { giveUp, ROOT } from '../../scripts/project.mjs';

const MANIFESTS = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
].join(', ');
const LINE = /^ARG BASE_IMAGE=([a-z\d]+):([\w.-]+)(?:@sha256:[0-9a-f]{64})?$/m;

const { values } = parseArgs({
  options: {
    registry: { type: 'string', default: 'https://registry-1.docker.io' },
    dockerfile: { type: 'string', default: join(ROOT, 'Dockerfile') },
  },
});
const text = readFileSync(values.dockerfile, 'utf8');
const line = LINE.exec(text);
if (line === null) giveUp(`${values.dockerfile} has no line ARG BASE_IMAGE=name:tag`);
const [, repository, tag] = line;

try {
  const digest = await digestOf(repository, tag);
  writeFileSync(values.dockerfile, text.replace(LINE, `ARG BASE_IMAGE=${repository}:${tag}@${digest}`));
  console.log(`${repository}:${tag} is ${digest}`);
} catch (error) {
  giveUp(`The base image is not pinned, and nothing was changed: ${error.cause?.message ?? error.message}`);
}

async function digestOf(name, reference) {
  const url = `${values.registry}/v2/library/${name}/manifests/${reference}`;
  const first = await fetch(url, { headers: { Accept: MANIFESTS } });
  const answer = first.status === 401 ? await withToken(url, first) : first;
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
  const digest = `sha256:${createHash('sha256')
    .update(new Uint8Array(await answer.arrayBuffer()))
    .digest('hex')}`;
  // A header that differs means that something on the way changed the manifest.
  const said = answer.headers.get('docker-content-digest');
  if (said !== null && said !== digest) throw new Error(`${url} sent another manifest than it names`);
  return digest;
}

/** A registry gives an anonymous token where its answer says (the distribution specification of OCI). */
async function withToken(url, { headers }) {
  const asked = headers.get('www-authenticate') ?? '';
  const field = (name) => new RegExp(`${name}="([^"]*)"`).exec(asked)?.[1] ?? '';
  const tokenUrl = new URL(field('realm'));
  tokenUrl.searchParams.set('service', field('service'));
  tokenUrl.searchParams.set('scope', field('scope'));
  const { token } = await (await fetch(tokenUrl)).json();
  return fetch(url, { headers: { Accept: MANIFESTS, Authorization: `Bearer ${token}` } });
}
