// Reads Kubernetes objects as a JSON array from stdin; writes what is wrong with each to stdout, an array of texts for
// every object. A program of its own, because kubernetes-models can only be imported, and Jest requires.

const KINDS = {
  'apps/v1 Deployment': () => import('kubernetes-models/apps/v1/Deployment'),
  'autoscaling/v2 HorizontalPodAutoscaler': () =>
    import('kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler'),
  'batch/v1 Job': () => import('kubernetes-models/batch/v1/Job'),
  'networking.k8s.io/v1 Ingress': () => import('kubernetes-models/networking.k8s.io/v1/Ingress'),
  'networking.k8s.io/v1 NetworkPolicy': () => import('kubernetes-models/networking.k8s.io/v1/NetworkPolicy'),
  'policy/v1 PodDisruptionBudget': () => import('kubernetes-models/policy/v1/PodDisruptionBudget'),
  'rbac.authorization.k8s.io/v1 Role': () => import('kubernetes-models/rbac.authorization.k8s.io/v1/Role'),
  'rbac.authorization.k8s.io/v1 RoleBinding': () =>
    import('kubernetes-models/rbac.authorization.k8s.io/v1/RoleBinding'),
  'v1 ConfigMap': () => import('kubernetes-models/v1/ConfigMap'),
  'v1 Service': () => import('kubernetes-models/v1/Service'),
  'v1 ServiceAccount': () => import('kubernetes-models/v1/ServiceAccount'),
};

/**
 * The object, and which of its keys somebody looked at. The schemas allow unknown keys, as Kubernetes' own do, which is how
 * a misspelt `readOnlyRootFileSystem` protects nobody; but a validator looks at every key that its schema knows.
 */
function watched(value, path, unread) {
  if (typeof value !== 'object' || value === null) return value;
  const inner = new Map();
  if (!Array.isArray(value)) for (const key of Object.keys(value)) unread.add(`${path}/${key}`);
  return new Proxy(value, {
    get(target, key, receiver) {
      const found = Reflect.get(target, key, receiver);
      if (typeof key !== 'string' || !Object.hasOwn(target, key)) return found;
      unread.delete(`${path}/${key}`);
      if (!inner.has(key)) inner.set(key, watched(found, `${path}/${key}`, unread));
      return inner.get(key);
    },
  });
}

async function faultsOf(object) {
  const name = `${object.apiVersion} ${object.kind}`;
  if (!Object.hasOwn(KINDS, name)) return [`no schema is known for ${name}`];
  const Model = (await KINDS[name]())[object.kind];
  const unread = new Set();
  try {
    Model.prototype.validate.call(watched(object, '', unread));
  } catch (error) {
    return [error.message];
  }
  return [...unread].map((path) => `${path} is unknown`);
}

let text = '';
for await (const chunk of process.stdin) text += chunk;
console.log(JSON.stringify(await Promise.all(JSON.parse(text).map(faultsOf))));
