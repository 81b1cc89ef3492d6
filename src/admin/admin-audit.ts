import { Injectable } from '@nestjs/common';
import { Audit } from '../audit/audit';
import type { AdminAction, AdminFields } from '../audit/audit-event';

/** The audit events of operators' calls. */
@Injectable()
export class AdminAudit {
  constructor(private readonly audit: Audit) {}

  /** A call of an operator. Before it is carried out: a process that dies in the middle must not hide it. */
  called(admin: string, method: string, route: string): void {
    this.audit.record({ audit: 'admin.called', admin, method, route });
  }

  /** A call without a good token. */
  refused(method: string, route: string): void {
    this.audit.record({ audit: 'admin.refused', method, route });
  }

  /** As {@link of}, for what changes something: also a process that dies in the middle leaves a word of what was begun. */
  async change<Answer>(
    admin: string,
    action: AdminAction,
    fields: AdminFields,
    call: () => Promise<Answer>,
  ): Promise<Answer> {
    this.audit.record({ audit: `admin.${action}`, admin, ...fields, outcome: 'begun' });
    return this.of(admin, action, fields, call);
  }

  /** Carries out what an operator asked for, and writes down whether it came to its end. */
  async of<Answer>(
    admin: string,
    action: AdminAction,
    fields: AdminFields,
    call: () => Promise<Answer>,
  ): Promise<Answer> {
    try {
      const answer = await call();
      this.audit.record({ audit: `admin.${action}`, admin, ...fields, outcome: 'done' });
      return answer;
    } catch (error) {
      this.audit.record({ audit: `admin.${action}`, admin, ...fields, outcome: 'failed' });
      throw error;
    }
  }
}
