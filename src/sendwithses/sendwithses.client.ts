import type { HttpService } from '@nestjs/axios';
import { Upstream, type UpstreamOptions } from '../upstream/upstream';
import type { UpstreamReason } from '../upstream/upstream.error';
import { classifySend, classifyVerify } from './classify';
import type { Condition } from './predicate';

export interface SendWithSesOptions extends UpstreamOptions {
  /** Read anew for each call. */
  templateKey: string;
  senderId?: string | undefined;
  originationNumber?: string | undefined;
  /** The conditions on an answer that accepts the SMS. */
  sentIf: readonly Condition[];
  /** The conditions on an answer that confirms the code. */
  verifiedIf: readonly Condition[];
}

// It knows no idempotency keys: a repeated send is a second SMS, and a code that was found right may be used up.
const CERTAINLY_NOT_DONE: ReadonlySet<UpstreamReason> = new Set(['unreachable']);

/**
 * The API of Send With SES, experimental: no shape of its answers is published, so a success is what meets the configured
 * conditions, and nothing less. It makes and checks the codes, and keeps one live code per number: a send voids the one
 * before. Every failure is thrown as an `UpstreamError`; a right and a wrong code are values.
 */
export class SendWithSesClient {
  private readonly upstream: Upstream;

  constructor(
    http: HttpService,
    private readonly options: SendWithSesOptions,
  ) {
    const credential = {
      header: 'template-key',
      get value() {
        return options.templateKey;
      },
    };
    this.upstream = new Upstream('sendwithses', http, credential, options);
  }

  /** Has a code made and sent. `accepted: 'unknown'` in the error means that the SMS may be on its way. */
  async send(mobile: string, until?: number): Promise<void> {
    const { senderId, originationNumber, sentIf } = this.options;
    await this.upstream.call(
      {
        operation: 'send',
        path: '/send-otp',
        body: {
          mobile,
          ...(senderId !== undefined && { sender_id: senderId }),
          ...(originationNumber !== undefined && { origination_number: originationNumber }),
        },
        secrets: [mobile],
        until,
        classify: (answer) => classifySend(answer, sentIf),
      },
      CERTAINLY_NOT_DONE,
    );
  }

  /** Whether this is the number's live code. */
  async verify(mobile: string, code: string): Promise<boolean> {
    const { outcome } = await this.upstream.call(
      {
        operation: 'verify',
        path: '/verify-otp',
        body: { mobile, otp: code },
        secrets: [mobile, code],
        classify: (answer) => classifyVerify(answer, this.options.verifiedIf),
      },
      CERTAINLY_NOT_DONE,
    );
    return outcome === 'verified';
  }
}
