import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { BlockList, isIPv4 } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { type Config, SECRETS, SETTING_NAMES } from '../../src/config/config';
import { readConfig } from '../../src/config/read-config';
import { type KubernetesObject, readObjects, referencesOf, render } from '../support/kustomize';
import { type Instance, startInstance } from '../support/world';

const ROOT = join(__dirname, '../..');
const FOLDER = join(ROOT, 'deploy/kubernetes');
const OVERLAYS = ['overlays/small', 'overlays/production'];
/** What is applied; base is not. */
const APPLIED = [...OVERLAYS, 'first-key', 'next-key'];
const EXPOSED = ['/.well-known', '/auth', '/oauth', '/pages'];
/** The pages for people. */
const PAGES = ['/', '/account', '/login'];

const read = (name: string): string => readFileSync(join(ROOT, name), 'utf8');
const files = readdirSync(FOLDER, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name));
const rendered = Object.fromEntries(APPLIED.map((name) => [name, render(join(FOLDER, name))]));

/** The objects of one kind, or the only one of it. */
const all = (name: string, kind: string) => rendered[name]!.filter((object) => object.kind === kind);
function one(name: string, kind: string): KubernetesObject {
  const [found, ...more] = all(name, kind);
  if (found === undefined || more.length > 0) throw new Error(`${name} has ${more.length} ${kind}s too many`);
  return found;
}
const podOf = (object: KubernetesObject) => object.spec.template as KubernetesObject;
const containerOf = (object: KubernetesObject) => podOf(object).spec.containers[0] as KubernetesObject;
const matches = (selector: Record<string, string>, labels: Record<string, string>): boolean =>
  Object.keys(selector).length > 0 && Object.entries(selector).every(([key, value]) => labels[key] === value);

/** What the API would say of each object; it drops a key that it does not know, and here that is a fault. */
function faultsOf(objects: KubernetesObject[]): string[][] {
  const program = join(ROOT, 'test/support/kubernetes-schemas.mjs');
  const output = execFileSync(process.execPath, [program], {
    input: JSON.stringify(objects),
    encoding: 'utf8',
  });
  return JSON.parse(output) as string[][];
}

describe('the files', () => {
  test('each file is named by a kustomization, and each name is a file or a folder', () => {
    const folders = files.filter((file) => basename(file) === 'kustomization.yaml').map(dirname);
    expect(folders.map((folder) => folder.slice(FOLDER.length + 1)).sort()).toEqual(
      ['base', ...APPLIED].sort(),
    );
    const named = folders.flatMap(referencesOf);
    expect(named.filter((path) => !existsSync(path))).toEqual([]);
    const unnamed = files.filter((file) => basename(file) !== 'kustomization.yaml' && !named.includes(file));
    expect(unnamed).toEqual([]);
  });

  test('no file holds a Secret, or text that looks like one', () => {
    const objects = files
      .filter((file) => file.endsWith('.yaml') && basename(file) !== 'kustomization.yaml')
      .flatMap(readObjects);
    expect(objects.filter(({ kind }) => kind === 'Secret')).toEqual([]);
    for (const file of files)
      expect(readFileSync(file, 'utf8')).not.toMatch(
        /sm_live_\w|rediss?(\+\w+)?:\/\/|PRIVATE KEY|[0-9a-f]{32}/,
      );
  });

  test('the schemas of Kubernetes know each field of each object, and no misspelt field', () => {
    // Of the Prometheus operator, not of Kubernetes; the rules are read in test/e2e/monitoring.test.ts.
    const known = APPLIED.flatMap((name) => rendered[name]!).filter(
      ({ kind }) => !['ServiceMonitor', 'PrometheusRule'].includes(kind),
    );
    const misspelt = structuredClone(one('overlays/small', 'Deployment'));
    containerOf(misspelt).securityContext = { readOnlyRootFileSystem: true };
    const wrong = structuredClone(one('overlays/small', 'Deployment'));
    wrong.spec.replicas = '2';
    const faults = faultsOf([...known, misspelt, wrong, { apiVersion: 'v1', kind: 'Pot' }]);
    const named = known.map(({ kind, metadata }, i) => [kind, metadata.name, ...faults[i]!]);
    expect(named).toEqual(known.map(({ kind, metadata }) => [kind, metadata.name]));
    expect(faults.slice(known.length)).toEqual([
      ['/spec/template/spec/containers/0/securityContext/readOnlyRootFileSystem is unknown'],
      [expect.stringContaining('/spec/replicas must be integer')],
      ['no schema is known for v1 Pot'],
    ]);
  });

  test('a patch that matches nothing is an error of the renderer', () => {
    const whole = mkdtempSync(join(tmpdir(), 'otp-login-kustomize-'));
    const copy = join(whole, 'kubernetes');
    try {
      cpSync(dirname(FOLDER), whole, { recursive: true });
      const deployment = join(copy, 'base/deployment.yaml');
      writeFileSync(deployment, readFileSync(deployment, 'utf8').replace('requests:', 'request:'));
      expect(() => render(join(copy, 'overlays/production'))).toThrow('requests/cpu does not apply');
      expect(render(join(copy, 'overlays/small'))).not.toEqual([]);
      writeFileSync(join(copy, 'base/ingress.yaml'), read('deploy/kubernetes/base/service.yaml'));
      expect(() => render(join(copy, 'overlays/small'))).toThrow('patches 0 objects');
    } finally {
      rmSync(whole, { recursive: true, force: true });
    }
  });
});

describe.each(OVERLAYS)('settings of %s', (name) => {
  const { data } = one(name, 'ConfigMap') as { data: Record<string, string> };
  const container = containerOf(one(name, 'Deployment'));
  const env = Object.fromEntries(
    (container.env as { name: string; value: string }[]).map((variable) => [variable.name, variable.value]),
  );
  let folder: string;
  let config: Config;

  /** The environment of the pod, with its mounted folders where this test can write. */
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'otp-login-mounts-'));
    const mounts = container.volumeMounts as { mountPath: string }[];
    for (const { mountPath } of mounts) mkdirSync(join(folder, mountPath), { recursive: true });
    const contents: Record<string, string> = {
      SECRET: randomBytes(32).toString('hex'),
      SUBJECT_SECRET: randomBytes(32).toString('hex'),
      STARTMESSAGING_API_KEY: `sm_live_${'5e'.repeat(20)}`,
      REDIS_URL: 'rediss+cluster://login:password@cache.example.com:6379',
      ADMIN_TOKENS: '',
      INTROSPECTION_CLIENTS: '',
    };
    for (const [file, text] of Object.entries(contents))
      writeFileSync(join(folder, '/etc/otp-login/secrets', file), text);
    const mounted = Object.entries(env).map(([key, path]) => [key, join(folder, path)]);
    config = readConfig({ ...data, ...(Object.fromEntries(mounted) as typeof env) });
  });
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  test(`the service starts for production with the settings of ${name}, and warns of nothing`, () => {
    expect([config.production, config.warnings]).toEqual([true, []]);
    expect(config.swagger).toBe(false);
  });

  test(`each setting of ${name} is known to the service, and is given once`, () => {
    const given = [
      ...Object.keys(data),
      ...Object.keys(env).map((variable) => variable.replace(/_FILE$/, '')),
    ];
    const names: readonly string[] = SETTING_NAMES;
    expect(given.filter((setting) => !names.includes(setting))).toEqual([]);
    expect(new Set(given).size).toBe(given.length);
    expect(container.envFrom).toEqual([{ configMapRef: { name: 'otp-login-settings' } }]);
  });

  test(`each secret setting of ${name} is a mounted file that docs/operations.md makes`, () => {
    expect(Object.keys(data).filter((setting) => setting in SECRETS)).toEqual([]);
    const { volumes } = podOf(one(name, 'Deployment')).spec as { volumes: KubernetesObject[] };
    const mounts = container.volumeMounts as { name: string; mountPath: string; readOnly: boolean }[];
    const folderOf = (secretName: string) => {
      const volume = volumes.find(({ secret }) => secret?.secretName === secretName);
      // Readable by the group that the pod runs as, and by nobody else.
      expect(volume?.secret).toEqual({ secretName, defaultMode: 0o440 });
      const mount = mounts.find((each) => each.name === volume?.name);
      expect(mount).toEqual({ name: volume?.name, mountPath: mount?.mountPath, readOnly: true });
      return mount?.mountPath;
    };
    const paths = Object.entries(env).filter(([variable]) => variable.endsWith('_FILE'));
    const secrets = folderOf('otp-login');
    for (const [variable, path] of paths) expect(path).toBe(`${secrets}/${variable.replace(/_FILE$/, '')}`);
    expect(env.JWT_KEYS_DIR).toBe(folderOf('otp-login-signing-keys'));
    expect(volumes).toHaveLength(2);
    // And each is followed while the pod runs, as the operations page says.
    expect(paths.map(([, path]) => basename(path)).filter((setting) => !(setting in SECRETS))).toEqual([]);

    const wanted = paths.map(([, path]) => basename(path)).sort();
    for (const text of [read('docs/operations.md'), read('deploy/kubernetes/base/kustomization.yaml')]) {
      const command = /create secret generic otp-login (?:.*\\\n)+.*/.exec(text)?.[0] ?? '';
      const made = [...command.matchAll(/--from-(?:literal|file)=([A-Z_]+)=/g)].map((match) => match[1]);
      expect(made.sort()).toEqual(wanted);
    }
  });

  test(`the settings of ${name} give a pod that ends the time for a send that is under way`, () => {
    const endWithinMs = Number(
      /END_WITHIN_MS = ([\d_]+);/.exec(read('src/main.ts'))?.[1]?.replaceAll('_', ''),
    );
    const drainMs = Number(
      /upstreamDeadlineMs \+ ([\d_]+)/.exec(read('src/main.ts'))?.[1]?.replaceAll('_', ''),
    );
    const { spec } = podOf(one(name, 'Deployment'));
    expect(spec.terminationGracePeriodSeconds).toBeGreaterThan(config.shutdownDelaySeconds + 30);
    expect(config.shutdownDelaySeconds * 1_000 + config.upstreamDeadlineMs + drainMs).toBeLessThanOrEqual(
      endWithinMs,
    );
    const { periodSeconds, failureThreshold } = container.readinessProbe;
    expect(periodSeconds * failureThreshold).toBeLessThan(config.shutdownDelaySeconds);
  });

  test(`the settings of ${name} have the port of the container and the host of the Ingress`, () => {
    expect(container.ports).toEqual([
      { name: 'http', containerPort: config.port, protocol: 'TCP' },
      { name: 'management', containerPort: config.managementPort, protocol: 'TCP' },
    ]);
    const { host } = new URL(config.issuer);
    const { spec } = one(name, 'Ingress');
    expect(spec.rules.map((rule: KubernetesObject) => rule.host)).toEqual([host]);
    expect(spec.tls).toEqual([{ hosts: [host], secretName: expect.any(String) }]);
  });
});

describe('the service', () => {
  let instance: Instance;
  beforeAll(async () => {
    // With everything on that can be: what the Ingress keeps inside is there to be reached.
    instance = await startInstance({ ADMIN_TOKENS: `ops:${'x'.repeat(32)}`, SWAGGER: 'true' });
  });
  afterAll(() => instance.close());

  test('the service answers each probe and the scrapes of Prometheus', async () => {
    const container = containerOf(one('overlays/production', 'Deployment'));
    const probes = ['startupProbe', 'readinessProbe', 'livenessProbe'].map(
      (probe) => container[probe].httpGet,
    );
    expect(probes).toEqual(
      ['startup', 'ready', 'live'].map((probe) => ({ path: `/health/${probe}`, port: 'management' })),
    );
    const { endpoints } = one('overlays/production', 'ServiceMonitor').spec;
    for (const { path } of [...probes, ...endpoints])
      expect([path, (await fetch(`${instance.url}${path as string}`)).status]).toEqual([path, 200]);
  });

  test.each(OVERLAYS)(
    'the Ingress of %s exposes the routes for users and clients, and no other route',
    async (name) => {
      const { paths } = one(name, 'Ingress').spec.rules[0].http as { paths: KubernetesObject[] };
      expect(paths.map(({ path }) => path).sort()).toEqual([...EXPOSED, ...PAGES].sort());
      const service = one(name, 'Service');
      for (const { path, pathType, backend } of paths) {
        // As a prefix, `/` would expose everything.
        expect(pathType).toBe(PAGES.includes(path as string) ? 'Exact' : 'Prefix');
        expect(backend.service).toEqual({
          name: service.metadata.name,
          port: { name: service.spec.ports[0].name },
        });
      }
      const { defaultBackend } = one(name, 'Ingress').spec;
      expect(defaultBackend).toBeUndefined();
      const document = (await (await fetch(`${instance.url}/docs-json`)).json()) as { paths: object };
      const routes = [...Object.keys(document.paths), '/metrics', '/docs', '/docs-json'];
      const inside = routes.filter((route) => !EXPOSED.some((prefix) => route.startsWith(`${prefix}/`)));
      expect(new Set(inside.map((route) => route.split('/')[1]))).toEqual(
        new Set(['admin', 'docs', 'docs-json', 'health', 'metrics']),
      );
      expect(routes.length - inside.length).toBeGreaterThan(10);
    },
  );
});

describe.each(OVERLAYS)('objects of %s', (name) => {
  const deployment = one(name, 'Deployment');
  const pod = podOf(deployment);

  test(`the objects of ${name} find each other by their labels`, () => {
    const service = one(name, 'Service');
    const { labels } = pod.metadata;
    expect(matches(deployment.spec.selector.matchLabels, labels)).toBe(true);
    expect(matches(service.spec.selector, labels)).toBe(true);
    expect(service.spec.ports).toEqual([
      { name: 'http', port: 80, targetPort: 'http', protocol: 'TCP' },
      { name: 'management', port: 9464, targetPort: 'management', protocol: 'TCP' },
    ]);
    for (const { labelSelector } of pod.spec.topologySpreadConstraints)
      expect(matches(labelSelector.matchLabels, labels)).toBe(true);
    const policies = all(name, 'NetworkPolicy');
    expect(policies).toHaveLength(4);
    for (const { spec } of policies) expect(matches(spec.podSelector.matchLabels, labels)).toBe(true);
    for (const { spec } of all(name, 'PodDisruptionBudget'))
      expect(matches(spec.selector.matchLabels, labels)).toBe(true);
    for (const { spec } of all(name, 'ServiceMonitor')) {
      expect(matches(spec.selector.matchLabels, service.metadata.labels)).toBe(true);
      expect(spec.endpoints.map(({ port }: KubernetesObject) => port)).toEqual(['management']);
    }
    for (const { spec } of all(name, 'HorizontalPodAutoscaler'))
      expect(spec.scaleTargetRef).toEqual({
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        name: deployment.metadata.name,
      });
    // The pods of the Job are none of the Service's.
    expect(matches(service.spec.selector, podOf(one('first-key', 'Job')).metadata.labels)).toBe(false);
  });

  test(`the objects of ${name} are in the namespace of the Job, and run its image`, () => {
    const namespaces = [...rendered[name]!, ...rendered['first-key']!].map(
      ({ metadata }) => metadata.namespace,
    );
    expect(new Set(namespaces)).toEqual(new Set(['otp-login']));
    expect(containerOf(one('first-key', 'Job')).image).toBe(containerOf(deployment).image);
  });

  test(`a rolling update of ${name} takes no pod away, and spreads the pods over zones and nodes`, () => {
    expect(deployment.spec.strategy).toEqual({
      type: 'RollingUpdate',
      rollingUpdate: { maxUnavailable: 0, maxSurge: 1 },
    });
    const spread = pod.spec.topologySpreadConstraints.map(({ topologyKey }: KubernetesObject) => topologyKey);
    expect(spread).toEqual(['topology.kubernetes.io/zone', 'kubernetes.io/hostname']);
  });

  test(`the pods of ${name} reach DNS, Redis and public https, and no other address`, () => {
    const rules = egressOf(name);
    const reaches = (address: string, port: number): boolean => reachedBy(rules, address, port);
    for (const address of [
      '10.1.2.3',
      '172.31.0.1',
      '192.168.0.1',
      '169.254.169.254',
      '100.100.100.200',
      '127.0.0.1',
    ])
      expect([address, reaches(address, 443)]).toEqual([address, false]);
    for (const address of ['fd00:ec2::254', 'fe80::1']) expect(reaches(address, 443)).toBe(false);
    expect([reaches('13.234.0.1', 443), reaches('2a05:d018::1', 443)]).toEqual([true, true]);
    for (const address of ['10.1.2.3', '172.31.0.1', '192.168.0.1', '13.234.0.1', 'fd00::1'])
      expect([address, reaches(address, 6379)]).toEqual([address, false]);
    const [redis] = rules.filter(({ ports }) => ports[0].port === 6379);
    expect(redis?.to).toEqual(
      name === 'overlays/production'
        ? [{ ipBlock: { cidr: '10.0.16.0/24' } }]
        : [
            {
              namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'redis' } },
              podSelector: { matchLabels: { 'app.kubernetes.io/name': 'redis' } },
            },
          ],
    );
    expect(reaches('169.254.169.254', 53)).toBe(false);
    const ports = rules.flatMap((rule) => rule.ports.map(({ port }: KubernetesObject) => port as number));
    expect([...new Set(ports)].sort((a, b) => a - b)).toEqual([53, 443, 6379]);
  });

  test(`the pods of ${name} are reached by the ingress controller and Prometheus only`, () => {
    const policies = all(name, 'NetworkPolicy').map(({ spec }) => spec as KubernetesObject);
    const deny = policies.filter(({ ingress, egress }) => ingress === undefined && egress === undefined);
    expect(deny.map(({ policyTypes }) => policyTypes)).toEqual([['Ingress', 'Egress']]);
    const ingress = policies.flatMap((spec) => (spec.ingress ?? []) as KubernetesObject[]);
    const sources = ingress.map(({ from, ports }) => [
      from.map(
        (source: KubernetesObject) => source.namespaceSelector.matchLabels['kubernetes.io/metadata.name'],
      ),
      from.map((source: KubernetesObject) => source.podSelector.matchLabels['app.kubernetes.io/name']),
      ports,
    ]);
    // Clients of the Ingress cannot reach the probes, and Prometheus cannot reach the logins.
    expect(sources).toEqual([
      [['ingress-nginx'], ['ingress-nginx'], [{ port: 'http', protocol: 'TCP' }]],
      [['monitoring'], ['prometheus'], [{ port: 'management', protocol: 'TCP' }]],
    ]);
  });
});

describe.each(APPLIED)('the least rights of %s', (name) => {
  test(`each network policy of ${name} that names pods names their namespace, too`, () => {
    const peers = all(name, 'NetworkPolicy').flatMap(({ spec }) =>
      [...(spec.egress ?? []), ...(spec.ingress ?? [])].flatMap(
        (rule: KubernetesObject) => (rule.to ?? rule.from) as KubernetesObject[],
      ),
    );
    expect(peers.length).toBeGreaterThan(0);
    for (const { ipBlock, namespaceSelector, podSelector } of peers) {
      if (ipBlock !== undefined) continue;
      // A pod of another namespace may have any label.
      expect(Object.keys((namespaceSelector?.matchLabels as object | undefined) ?? {})).toEqual([
        'kubernetes.io/metadata.name',
      ]);
      expect(Object.keys((podSelector?.matchLabels as object | undefined) ?? {})).toHaveLength(1);
    }
  });

  test(`no rule of ${name} allows a wide private network, or a port by default`, () => {
    for (const { to, from, ports } of all(name, 'NetworkPolicy').flatMap(
      ({ spec }) => [...(spec.egress ?? []), ...(spec.ingress ?? [])] as KubernetesObject[],
    )) {
      expect(ports?.length).toBeGreaterThan(0);
      const blocks = ((to ?? from) as KubernetesObject[]).flatMap(({ ipBlock }) => ipBlock ?? []);
      for (const { cidr, except } of blocks)
        // All of the internet without the private networks, or 256 addresses at most.
        expect([cidr, except !== undefined || addressesIn(cidr) <= 256]).toEqual([cidr, true]);
    }
  });
});

describe.each(OVERLAYS)('the edge of %s', (name) => {
  const annotation = (key: string): string | undefined =>
    one(name, 'Ingress').metadata.annotations?.[`nginx.ingress.kubernetes.io/${key}`] as string | undefined;

  test(`the Ingress of ${name} redirects no call, and exposes neither probes nor metrics`, () => {
    expect([annotation('ssl-redirect'), annotation('force-ssl-redirect')]).toEqual(['false', 'false']);
    const { rules } = one(name, 'Ingress').spec as { rules: KubernetesObject[] };
    const backends = rules.flatMap(({ http }) =>
      http.paths.map(({ backend }: KubernetesObject) => backend.service.port.name as string),
    );
    expect(new Set(backends)).toEqual(new Set(['http']));
  });

  test(`the Ingress of ${name} limits the body and the rate of a client address`, () => {
    const bytes = Number(/^(\d+)k$/.exec(annotation('proxy-body-size') ?? '')?.[1]) * 1_024;
    // The largest body of the service passes, and not much more.
    expect(bytes).toBeGreaterThanOrEqual(16 * 1_024);
    expect(bytes).toBeLessThanOrEqual(64 * 1_024);
    for (const limit of ['limit-rps', 'limit-burst-multiplier', 'limit-connections'])
      expect([limit, Number(annotation(limit)) > 0]).toEqual([limit, true]);
  });

  test(`TRUSTED_PROXIES of ${name} is no wider than a controller's pods need`, () => {
    const { data } = one(name, 'ConfigMap') as { data: Record<string, string> };
    const wide = data.TRUSTED_PROXIES!.split(',').filter((cidr) => addressesIn(cidr) > 256);
    expect(wide).toEqual([]);
  });

  test(`probes and metrics of ${name} are on the management port`, () => {
    const { data } = one(name, 'ConfigMap') as { data: Record<string, string> };
    const { startupProbe, readinessProbe, livenessProbe, ports } = containerOf(one(name, 'Deployment'));
    for (const probe of [startupProbe, readinessProbe, livenessProbe] as KubernetesObject[])
      expect(probe.httpGet.port).toBe('management');
    const management = (ports as KubernetesObject[]).find((port) => port.name === 'management');
    expect([data.MANAGEMENT_PORT, data.PORT]).toEqual([String(management?.containerPort), '3000']);
    for (const monitor of all(name, 'ServiceMonitor'))
      for (const endpoint of monitor.spec.endpoints) expect(endpoint.port).toBe('management');
  });
});

describe('every pod', () => {
  const workloads = APPLIED.flatMap((name) => [...all(name, 'Deployment'), ...all(name, 'Job')]);

  test('each pod runs as the user of the image, without rights, on a read-only file system', () => {
    const [, user] = /^USER (\d+):\d+$/m.exec(read('Dockerfile')) ?? [];
    expect(Number(user)).toBeGreaterThan(0);
    expect(workloads).toHaveLength(4);
    for (const workload of workloads) {
      const { spec } = podOf(workload);
      expect(spec.securityContext).toMatchObject({
        runAsNonRoot: true,
        runAsUser: Number(user),
        seccompProfile: { type: 'RuntimeDefault' },
      });
      expect(spec.containers).toHaveLength(1);
      expect(spec.initContainers).toBeUndefined();
      expect(containerOf(workload).securityContext).toEqual({
        allowPrivilegeEscalation: false,
        privileged: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      const { requests, limits } = containerOf(workload).resources;
      expect([requests, limits]).toEqual([
        { cpu: expect.any(String), memory: expect.any(String) },
        { memory: expect.any(String) },
      ]);
      expect(spec.enableServiceLinks).toBe(false);
      for (const field of ['hostNetwork', 'hostPID', 'hostIPC']) expect(spec[field]).toBeUndefined();
    }
  });

  test('only the pods of the Jobs hold a token of the Kubernetes API', () => {
    const holds = workloads.map(({ kind, spec }) => [kind, spec.template.spec.automountServiceAccountToken]);
    expect(holds).toEqual([
      ['Deployment', false],
      ['Deployment', false],
      ['Job', true],
      ['Job', true],
    ]);
    for (const account of APPLIED.flatMap((name) => all(name, 'ServiceAccount')))
      expect(account.automountServiceAccountToken).toBe(false);
  });

  test('each pod runs an image with a fixed tag', () => {
    const images = workloads.map((workload) => containerOf(workload).image as string);
    const bases = [...read('Dockerfile').matchAll(/^ARG BASE_IMAGE=([^@\s]+)/gm)].map((match) => match[1]!);
    expect(bases).toHaveLength(1);
    // Also where an overlay names another one: a file that is copied brings its own along.
    const written = files.flatMap((file) =>
      [...readFileSync(file, 'utf8').matchAll(/^ +image: (.*)$/gm)].map((match) => match[1]!),
    );
    expect(written).toHaveLength(2);
    for (const image of [...images, ...bases, ...written])
      expect(image).toMatch(/^[\w./-]+:(?!latest)[\w.-]+$/);
    for (const file of files) expect(readFileSync(file, 'utf8')).not.toMatch(/\blatest\b/i);
  });

  test('each object has the labels that Kubernetes recommends', () => {
    const names = ['name', 'part-of', 'managed-by'].map((label) => `app.kubernetes.io/${label}`);
    for (const { metadata } of [...Object.values(rendered).flat(), ...workloads.map(podOf)])
      expect(Object.keys(metadata.labels as object)).toEqual(expect.arrayContaining(names));
  });
});

describe('the sizes', () => {
  test('the overlay small sets one or two replicas by itself', () => {
    expect([1, 2]).toContain(one('overlays/small', 'Deployment').spec.replicas);
    expect(all('overlays/small', 'HorizontalPodAutoscaler')).toEqual([]);
  });

  test('the autoscaler of production alone sets three or more replicas, of which one may be away', () => {
    expect(one('overlays/production', 'Deployment').spec).not.toHaveProperty('replicas');
    const { minReplicas, maxReplicas } = one('overlays/production', 'HorizontalPodAutoscaler').spec;
    expect(minReplicas).toBeGreaterThanOrEqual(3);
    expect(maxReplicas).toBeGreaterThan(minReplicas as number);
    expect(one('overlays/production', 'PodDisruptionBudget').spec).toMatchObject({ maxUnavailable: 1 });
  });

  test('the ServiceMonitor holds the keys that its operator knows', () => {
    const { apiVersion, spec, ...rest } = one('overlays/production', 'ServiceMonitor');
    expect(apiVersion).toBe('monitoring.coreos.com/v1');
    expect(Object.keys(rest).sort()).toEqual(['kind', 'metadata']);
    expect(Object.keys(spec as object).sort()).toEqual(['endpoints', 'selector']);
    expect(spec.endpoints).toEqual([
      { port: 'management', path: '/metrics', interval: '30s', scrapeTimeout: '10s' },
    ]);
  });
});

describe.each(['first-key', 'next-key'])('the Job of %s', (name) => {
  test(`the Job of ${name} may read and write the one Secret of signing keys, and create none`, () => {
    const [mode, secret] = containerOf(one(name, 'Job')).args as string[];
    expect(mode).toBe(name.replace('-key', ''));
    expect(one(name, 'Role').rules).toEqual([
      { apiGroups: [''], resources: ['secrets'], resourceNames: [secret], verbs: ['get', 'update'] },
    ]);
    const account = podOf(one(name, 'Job')).spec.serviceAccountName as string;
    expect(one(name, 'ServiceAccount').metadata.name).toBe(account);
    expect(one(name, 'RoleBinding').subjects).toEqual([
      { kind: 'ServiceAccount', name: account, namespace: 'otp-login' },
    ]);
    expect(one(name, 'RoleBinding').roleRef.name).toBe(one(name, 'Role').metadata.name);
    const { volumes } = podOf(one('overlays/production', 'Deployment')).spec as {
      volumes: KubernetesObject[];
    };
    expect(volumes.map((volume) => volume.secret?.secretName as string)).toContain(secret);
  });

  test(`the Job of ${name} reaches the API server and nothing else`, () => {
    const rules = egressOf(name);
    const addresses = rules
      .flatMap(({ to }) => to as KubernetesObject[])
      .map(({ ipBlock }) => ipBlock?.cidr as string);
    expect(addresses.length).toBeGreaterThan(0);
    // A key could leave by any other address, and by DNS.
    for (const cidr of addresses) expect([cidr, addressesIn(cidr)]).toEqual([cidr, 1]);
    const ports = rules.flatMap((rule) => rule.ports.map(({ port }: KubernetesObject) => port as number));
    expect(ports).toEqual([443, 6443]);
    const [policy, ...more] = all(name, 'NetworkPolicy');
    expect([policy?.spec.policyTypes, policy?.spec.ingress, more]).toEqual([
      ['Ingress', 'Egress'],
      undefined,
      [],
    ]);
  });

  test(`the Job of ${name} runs a script that the image holds with all its imports`, () => {
    const { command } = containerOf(one(name, 'Job')) as { command: string[] };
    const copied = /^COPY (scripts\/.*) \.\/scripts\/$/m.exec(read('Dockerfile'))?.[1]?.split(' ') ?? [];
    expect(copied).toContain(command[1]);
    const imported = copied.flatMap((script) =>
      [...read(script).matchAll(/from '\.\/(.*)'/g)].map((match) => `scripts/${match[1]}`),
    );
    expect(imported.filter((script) => !copied.includes(script))).toEqual([]);
    const kept = read('.dockerignore').split('\n');
    expect(copied.filter((script) => !kept.includes(`!${script}`))).toEqual([]);
  });
});

test('the image holds no tests, no emulator and no tools of development', () => {
  const image = read('Dockerfile').split(/^FROM .*\n/m);
  const last = image.at(-1) ?? '';
  const copied = [...last.matchAll(/^COPY (.*)$/gm)].map((match) => match[1]);
  expect(copied).toEqual([
    'package.json LICENSE ./',
    '--from=packages /app/node_modules ./node_modules',
    '--from=build /app/dist ./dist',
    expect.stringMatching(/^scripts\/[\w. /-]+$/),
  ]);
  expect(image.join()).toMatch(/npm run build && mv dist\/emulator \/emulator/);
  expect(image.join()).toMatch(/npm ci --omit=dev --omit=optional/);
  // What is optional and left out all the same must be something that only development asks for.
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean }>;
  };
  const optional = Object.entries(packages).filter(([, entry]) => entry.optional && !entry.dev);
  expect(optional.map(([path]) => path)).toEqual([]);
});

const egressOf = (name: string): KubernetesObject[] =>
  all(name, 'NetworkPolicy').flatMap(({ spec }) => (spec.egress ?? []) as KubernetesObject[]);

/** Whether a rule lets a pod reach this address and port. */
function reachedBy(rules: KubernetesObject[], address: string, port: number): boolean {
  return rules.some(
    ({ to, ports }) =>
      ports.some((each: KubernetesObject) => each.port === port) &&
      to.some(
        ({ ipBlock }: KubernetesObject) =>
          ipBlock &&
          within(ipBlock.cidr, address) &&
          !(ipBlock.except ?? []).some((cidr: string) => within(cidr, address)),
      ),
  );
}

/** How many addresses a network has. */
function addressesIn(cidr: string): number {
  const [network = '', bits] = cidr.split('/');
  return 2 ** ((isIPv4(network) ? 32 : 128) - Number(bits));
}

function within(cidr: string, address: string): boolean {
  const [network = '', bits] = cidr.split('/');
  const list = new BlockList();
  list.addSubnet(network, Number(bits), isIPv4(network) ? 'ipv4' : 'ipv6');
  return isIPv4(network) === isIPv4(address) && list.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}
