import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, parseAllDocuments } from 'yaml';

/** A Kubernetes object: tests look into objects of many shapes. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type KubernetesObject = Record<string, any>;

/** The part of kustomize that deploy/kubernetes uses; anything else is refused, so that nothing is passed over. */
interface Kustomization {
  apiVersion: string;
  kind: string;
  namespace?: string;
  resources?: string[];
  images?: { name: string; newName: string; newTag: string }[];
  replicas?: { name: string; count: number }[];
  configMapGenerator?: { name: string; behavior?: 'merge'; envs: string[] }[];
  labels?: { pairs: Record<string, string>; includeTemplates: true }[];
  patches?: { target: { group: string; version: string; kind: string; name: string }; path: string }[];
}
const FIELDS = new Set(
  'apiVersion kind namespace resources images replicas configMapGenerator labels patches'.split(' '),
);

export function readKustomization(folder: string): Kustomization {
  const kustomization = parse(readFileSync(join(folder, 'kustomization.yaml'), 'utf8')) as Kustomization;
  for (const field of Object.keys(kustomization))
    if (!FIELDS.has(field)) throw new Error(`${folder}: ${field} is not understood here`);
  return kustomization;
}

/** Every path that a kustomization names, as it is on the disk. */
export function referencesOf(folder: string): string[] {
  const { resources = [], configMapGenerator = [], patches = [] } = readKustomization(folder);
  const envs = configMapGenerator.flatMap((generator) => generator.envs);
  return [...resources, ...envs, ...patches.map(({ path }) => path)].map((path) => join(folder, path));
}

/** Every object of a file; a key that stands twice is an error. */
export function readObjects(file: string): KubernetesObject[] {
  return parseAllDocuments(readFileSync(file, 'utf8')).map((document) => {
    if (document.errors.length > 0) throw new Error(`${file}: ${document.errors.join()}`);
    return document.toJS() as KubernetesObject;
  });
}

/** What `kustomize build` makes of a folder, but for the hash in the names of generated ConfigMaps. */
export function render(folder: string): KubernetesObject[] {
  const its = readKustomization(folder);
  const objects = (its.resources ?? []).flatMap((path) => {
    const found = join(folder, path);
    return existsSync(join(found, 'kustomization.yaml')) ? render(found) : readObjects(found);
  });

  for (const { name, behavior, envs } of its.configMapGenerator ?? []) {
    const data = Object.assign({}, ...envs.map((file) => readVariables(join(folder, file)))) as object;
    const there = objects.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === name);
    if ((behavior === 'merge') !== (there !== undefined))
      throw new Error(`${folder}: ${name} cannot be made`);
    if (there) Object.assign(there.data, data);
    else objects.push({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data });
  }
  for (const { target, path } of its.patches ?? []) {
    const apiVersion = [target.group, target.version].filter(Boolean).join('/');
    const targets = objects.filter(
      (object) =>
        object.apiVersion === apiVersion &&
        object.kind === target.kind &&
        object.metadata.name === target.name,
    );
    if (targets.length !== 1) throw new Error(`${folder}/${path} patches ${targets.length} objects`);
    const operations = parse(readFileSync(join(folder, path), 'utf8')) as Parameters<typeof replace>[1][];
    for (const operation of operations) replace(targets[0]!, operation);
  }
  for (const object of objects) {
    if (its.namespace !== undefined) object.metadata.namespace = its.namespace;
    if (its.namespace !== undefined && object.kind === 'RoleBinding')
      for (const subject of object.subjects) subject.namespace = its.namespace;
    const template = object.spec?.template;
    for (const { pairs } of its.labels ?? [])
      for (const { metadata } of [object, template].filter(Boolean))
        metadata.labels = { ...metadata.labels, ...pairs };
    for (const { name, newName, newTag } of its.images ?? [])
      for (const container of template?.spec.containers ?? [])
        if (container.image.split(':')[0] === name) container.image = `${newName}:${newTag}`;
    for (const { name, count } of its.replicas ?? [])
      if (object.kind === 'Deployment' && object.metadata.name === name) object.spec.replicas = count;
  }
  return objects;
}

/** RFC 6902: of its operations only `replace`, which fails where there is nothing to be replaced. */
function replace(
  object: KubernetesObject,
  { op, path, value }: { op: string; path: string; value: unknown },
): void {
  const keys = path
    .split('/')
    .slice(1)
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
  const last = keys.pop() ?? '';
  const parent = keys.reduce<KubernetesObject | undefined>((inner, key) => inner?.[key], object);
  if (op !== 'replace' || parent === undefined || !Object.hasOwn(parent, last))
    throw new Error(`${op} ${path} does not apply to ${object.kind} ${object.metadata.name}`);
  parent[last] = value;
}

function readVariables(file: string): Record<string, string> {
  const lines = readFileSync(file, 'utf8').split('\n');
  return Object.fromEntries(
    lines
      .filter((line) => line.trim() !== '' && !line.startsWith('#'))
      .map((line) => {
        const [, name, value] = /^([A-Z][A-Z\d_]*)=(.*)$/.exec(line) ?? [];
        if (name === undefined || value === undefined) throw new Error(`${file}: ${line}`);
        return [name, value];
      }),
  );
}
