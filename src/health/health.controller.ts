import { Controller, Get, Res } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiServiceUnavailableResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { ApiProblems, RETRY_AFTER } from '../http/api-problems';
import { Store } from '../redis/store';
import { Lifecycle } from './lifecycle';

type Status = 'ok' | 'degraded' | 'starting' | 'ending';

const BODY = {
  type: 'object' as const,
  required: ['status'],
  properties: { status: { type: 'string' as const, enum: ['ok', 'degraded', 'starting', 'ending'] } },
};
const healthy = { description: 'Yes', schema: BODY };
const unhealthy = { description: 'Not now', schema: BODY, headers: RETRY_AFTER };

/** The three probes of Kubernetes. */
@ApiTags('Operate')
@Controller('health')
export class HealthController {
  constructor(
    private readonly store: Store,
    private readonly lifecycle: Lifecycle,
  ) {}

  @Get('live')
  @ApiOperation({ operationId: 'live', summary: 'The process answers', security: [] })
  @ApiOkResponse(healthy)
  @ApiProblems('payload_too_large')
  live(): { status: Status } {
    return { status: 'ok' };
  }

  @Get('ready')
  @ApiOperation({ operationId: 'ready', summary: 'Traffic may come', security: [] })
  @ApiOkResponse({ ...healthy, description: 'Yes; `degraded` while Redis is away' })
  @ApiServiceUnavailableResponse({
    ...unhealthy,
    description: 'Redis was never reached, or refuses what the service needs, or the process is ending',
  })
  @ApiProblems('payload_too_large')
  ready(@Res({ passthrough: true }) reply: FastifyReply): { status: Status } {
    if (this.lifecycle.ending) return this.unavailable(reply, 'ending');
    if (!this.store.reached) return this.unavailable(reply, 'starting');
    // It does not follow Redis from here on: all pods would leave the load balancer at once, and a 503 with a
    // Retry-After is a better answer than none.
    return { status: this.store.available ? 'ok' : 'degraded' };
  }

  @Get('startup')
  @ApiOperation({ operationId: 'startup', summary: 'The process has started', security: [] })
  @ApiOkResponse(healthy)
  @ApiServiceUnavailableResponse({
    ...unhealthy,
    description: 'Redis was never reached, or refuses what the service needs',
  })
  @ApiProblems('payload_too_large')
  startup(@Res({ passthrough: true }) reply: FastifyReply): { status: Status } {
    return this.store.reached ? { status: 'ok' } : this.unavailable(reply, 'starting');
  }

  private unavailable(reply: FastifyReply, status: Status): { status: Status } {
    void reply.status(503).header('Retry-After', '1');
    return { status };
  }
}
