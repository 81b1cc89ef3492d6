import { serviceModule } from './service';
import { call, type Answer, type Instance, type Variables, type World } from './world';

export const ADMIN_TOKEN = 'operator-token-0123456789-abcdefg';
/** Under which there is an /admin, and one operator. */
export const WITH_ADMIN: Variables = { ADMIN_TOKENS: `ops:${ADMIN_TOKEN}` };

/** A call of the operator. */
export const asAdmin = (method: string, url: string, body?: unknown): Promise<Answer> =>
  call(method, url, body, { authorization: `Bearer ${ADMIN_TOKEN}` });

export const block = (url: string, phoneNumber: unknown, more: object = {}): Promise<Answer> =>
  asAdmin('POST', `${url}/admin/numbers/block`, { phoneNumber, ...more });

export const unblock = (url: string, phoneNumber: unknown): Promise<Answer> =>
  asAdmin('POST', `${url}/admin/numbers/unblock`, { phoneNumber });

export const unlock = (url: string, phoneNumber: unknown): Promise<Answer> =>
  asAdmin('POST', `${url}/admin/numbers/unlock`, { phoneNumber });

/** Makes every instance write now what it keeps for the ledger and the abuse control. */
export async function flushLedger({ instances }: World): Promise<void> {
  const { Ledger } = serviceModule<typeof import('../../src/ledger/ledger')>('ledger/ledger');
  await Promise.all(instances.map(({ app }) => app.get(Ledger).flush()));
}

/** The totals of the last seven days, with everything that happened until now. */
export async function usageOf(world: World): Promise<Record<string, number>> {
  await flushLedger(world);
  const { body } = await asAdmin('GET', `${world.url}/admin/usage`);
  return body.total as Record<string, number>;
}

export type AuditLine = Record<string, unknown> & { audit: string; outcome: string };

/** The lines of the audit so far, of operators unless something else is asked for. */
export const auditOf = ({ logs }: Instance, about = /^admin\./): AuditLine[] =>
  logs
    .map((line) => JSON.parse(line) as AuditLine)
    .filter(({ type, audit }) => type === 'audit' && about.test(audit));
