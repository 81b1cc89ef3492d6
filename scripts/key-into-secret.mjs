// `node scripts/key-into-secret.mjs first|next secret-name`, in a pod: puts a signing key into an existing Secret of its
// namespace, through the Kubernetes API and with the pod's own token. `first` changes nothing if there is a key, `next`
// nothing if a key still waits for its time; neither ever changes or removes one. The key is never printed.
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { isKeyName, newSigningKeys } from './signing-key.mjs';

const TIMEOUT_MS = 20_000;

const [mode, secretName, account = '/var/run/secrets/kubernetes.io/serviceaccount'] = process.argv.slice(2);
try {
  if ((mode !== 'first' && mode !== 'next') || !/^[a-z0-9][a-z0-9.-]*$/.test(secretName ?? '')) {
    throw new Error('say first or next, and the name of the Secret');
  }
  const secret = await call('GET');
  const names = Object.keys(secret.data ?? {}).filter(isKeyName);
  // A name begins with its minute.
  const minute = new Date().toISOString().slice(0, 16).replace(/[-:]/g, '');
  const ready = mode === 'first' ? names[0] : names.find((name) => name.slice(0, minute.length) > minute);
  if (ready === undefined) {
    const [{ name, pem, from }] = newSigningKeys(names);
    // With the resourceVersion that was read: Kubernetes refuses a change over another one by a 409.
    secret.data = { ...secret.data, [name]: Buffer.from(pem).toString('base64') };
    await call('PUT', secret);
    console.log(`${name} is in the Secret ${secretName}. It signs from ${from} on.`);
  } else {
    console.log(`Nothing was changed: the Secret ${secretName} holds ${ready}.`);
  }
} catch (error) {
  console.error(`No key was made: ${error.message}`);
  process.exit(1);
}

/** Throws with the status and no word of the answer's body, which may be the Secret. */
async function call(method, body) {
  const file = (name) => readFileSync(join(account, name), 'utf8').trim();
  const answer = await new Promise((resolve, reject) => {
    const sent = request(
      {
        host: process.env.KUBERNETES_SERVICE_HOST,
        port: process.env.KUBERNETES_SERVICE_PORT,
        // The cluster's own authority, and no other.
        ca: file('ca.crt'),
        path: `/api/v1/namespaces/${file('namespace')}/secrets/${secretName}`,
        method,
        headers: { authorization: `Bearer ${file('token')}`, 'content-type': 'application/json' },
        signal: AbortSignal.timeout(TIMEOUT_MS),
      },
      resolve,
    );
    sent.once('error', reject);
    sent.end(body && JSON.stringify(body));
  });
  let text = '';
  for await (const chunk of answer.setEncoding('utf8')) text += chunk;
  if (answer.statusCode === 200) return JSON.parse(text);
  const meaning = {
    401: 'the token of the pod is not accepted',
    403: 'the account of the pod may not do that',
    404: 'there is no such Secret, make an empty one first',
    409: 'the Secret was changed meanwhile',
  };
  throw new Error(`${method} ${secretName}: ${answer.statusCode} ${meaning[answer.statusCode] ?? ''}`.trim());
}
