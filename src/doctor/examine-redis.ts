import { redact } from '../logging/redact';
import type { Primary } from '../redis/primaries';
import { askRedis } from './ask-redis';
import { fault, type Finding } from './finding';
import { checkRedis, REDIS_CHECKS, type RedisKind } from './redis-checks';

/** Asks every primary, and tells what each has to mend; what is well everywhere is told once. Never throws. */
export async function examineRedis(
  kind: RedisKind,
  primaries: readonly Primary[],
  now: () => number = Date.now,
): Promise<Finding[]> {
  const asked = primaries.map(async (primary) => {
    try {
      return checkRedis(kind, await askRedis(primary, now));
    } catch (error) {
      const reason = error instanceof Error ? redact(error.message) : 'it failed';
      return [fault('redis_reached', `${primary.name} does not answer: ${reason}`)];
    }
  });
  const findings = (await Promise.all(asked)).flat();
  return REDIS_CHECKS.flatMap((check) => {
    const found = findings.filter((finding) => finding.check === check);
    const toMend = found.filter(({ level }) => level !== 'ok');
    const [first, ...others] = found;
    if (toMend.length > 0 || first === undefined) return toMend;
    return [
      others.length === 0 ? first : { ...first, message: `${first.message}, as ${others.length} more` },
    ];
  });
}
