import type { Redis } from 'ioredis';

const CLOCK = 'test:clock';

/**
 * The head of every script under the simulated clock: what asks for the time asks a key, and what sets or reads a time to live
 * goes by that key, too.
 */
const SIMULATION = `
local real = redis
local redis = setmetatable({}, { __index = real })
-- Before a test sets the clock, the service starts and checks Redis: by the clock of Redis.
local function simulated_ms()
  local now = real.call('TIME')
  return tonumber(real.call('GET', '${CLOCK}')) or now[1] * 1000 + math.floor(now[2] / 1000)
end
local function simulated_end(ms) return string.format('%.0f', simulated_ms() + tonumber(ms)) end
function redis.call(command, key, ...)
  local more = { ... }
  if command == 'TIME' then
    local now = simulated_ms()
    return { string.format('%.0f', math.floor(now / 1000)), string.format('%.0f', now % 1000 * 1000) }
  elseif command == 'PEXPIRE' then
    return real.call('PEXPIREAT', key, simulated_end(more[1]))
  elseif command == 'PTTL' then
    local at = real.call('PEXPIRETIME', key)
    return at < 0 and at or at - simulated_ms()
  elseif command == 'SET' and more[#more - 1] == 'PX' then
    more[#more - 1], more[#more] = 'PXAT', simulated_end(more[#more])
    return real.call(command, key, unpack(more))
  elseif command == 'XADD' then
    for i = 1, 4 do
      if more[i] == '*' then
        more[i] = string.format('%.0f-*', simulated_ms())
        break
      end
    end
    return real.call(command, key, unpack(more))
  elseif key == nil then
    return real.call(command)
  end
  return real.call(command, key, ...)
end
`;

/** In one step: sets the clock, and deletes what has expired by it. */
const MOVE = `
redis.call('SET', KEYS[1], ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local at = redis.call('PEXPIRETIME', key)
  if at >= 0 and at < tonumber(ARGV[1]) then redis.call('DEL', key) end
end`;

let simulated = false;

/** `node:fs` under which every script is read with the head above. Importing this module puts it in place. */
function fsWithSimulatedClock(): object {
  const fs = jest.requireActual<typeof import('node:fs')>('node:fs');
  const readFileSync = (path: string, ...more: unknown[]): unknown => {
    const text: unknown = (fs.readFileSync as (...all: unknown[]) => unknown)(path, ...more);
    if (typeof text !== 'string' || !path.endsWith('prelude.lua')) return text;
    simulated = true;
    return SIMULATION + text;
  };
  return { ...fs, readFileSync };
}

jest.mock('node:fs', () => fsWithSimulatedClock());

/** Sets the clock of the scripts, in milliseconds since 1970. It must not be in the past: Redis itself would delete keys. */
export async function setClock(redis: Redis, ms: number): Promise<void> {
  await redis.set(CLOCK, ms);
}

/** A midnight of Asia/Kolkata that is far away, so that Redis's own clock ends nothing. */
export const MIDNIGHT = Date.parse('2050-03-01T00:00:00+05:30');

/**
 * The time that scripts ask for, and by which keys expire. It stands still until the test moves it. To use it, a test file
 * imports this module before anything of `src/`: the scripts are read then.
 */
export class SimulatedClock {
  /** Milliseconds since 1970. */
  now = MIDNIGHT;

  private constructor(private readonly redis: Redis) {}

  /** Empties the database and sets the clock to midnight. */
  static async start(redis: Redis): Promise<SimulatedClock> {
    if (!simulated)
      throw new Error(
        'The scripts were read before test/support/simulated-clock was imported: import it first',
      );
    const clock = new SimulatedClock(redis);
    await clock.empty();
    return clock;
  }

  /** It is this time from now on: what was to expire before then is gone. */
  async set(ms: number): Promise<void> {
    this.now = Math.round(ms);
    await this.redis.eval(MOVE, 1, CLOCK, this.now);
  }

  async pass(ms: number): Promise<void> {
    await this.set(this.now + ms);
  }

  /** Empties the database; the clock stands where it was. */
  async empty(): Promise<void> {
    await this.redis.flushdb();
    await setClock(this.redis, this.now);
  }

  /** How long the key lives on, in milliseconds; negative when there is no such key, or it lives for ever. */
  async ttl(key: string): Promise<number> {
    const at = await this.redis.pexpiretime(key);
    return at < 0 ? at : at - this.now;
  }

  /** Every key of the service, in order. */
  async keys(pattern = '*'): Promise<string[]> {
    return (await this.redis.keys(pattern)).filter((key) => key !== CLOCK).sort();
  }
}
