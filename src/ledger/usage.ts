import { Injectable } from '@nestjs/common';
import { Store } from '../redis/store';
import { LEDGER_KEY } from './ledger';

/** Asia/Kolkata is five and a half hours ahead all year round. */
const KOLKATA_MS = 19_800_000;
const DAY_MS = 86_400_000;

/** The totals of an hour, a day or more. A sum is in ten-thousandths of a rupee; what was refunded is not in it. */
export interface Usage {
  sent: number;
  refunded: number;
  verified: number;
  delivered: number;
  failed: number;
  unknown: number;
  cost: number;
}

/** A day of Asia/Kolkata, as `2026-11-21`, and those of its hours in which something happened. */
export interface UsageOfDay extends Usage {
  date: string;
  hours: (Usage & { hour: number })[];
}

const NOTHING: Usage = { sent: 0, refunded: 0, verified: 0, delivered: 0, failed: 0, unknown: 0, cost: 0 };

/** Reads the ledger's totals: what the SMS bill will say. */
@Injectable()
export class UsageReader {
  constructor(private readonly store: Store) {}

  /** The day of Asia/Kolkata that a time lies in. */
  static dayOf(time: Date): string {
    return new Date(time.getTime() + KOLKATA_MS).toISOString().slice(0, 10);
  }

  /** The hour of Asia/Kolkata that a time lies in. */
  static hourOf(time: Date): { day: string; hour: number } {
    const there = new Date(time.getTime() + KOLKATA_MS);
    return { day: there.toISOString().slice(0, 10), hour: there.getUTCHours() };
  }

  /** The totals of these days, the first and the last included, the oldest first. Totals are counted where they were sent. */
  async read(from: string, to: string): Promise<UsageOfDay[]> {
    const [first, last] = [Date.parse(from) / DAY_MS, Date.parse(to) / DAY_MS];
    const days = Array.from({ length: last - first + 1 }, (_, i) => first + i);
    const hashes = await this.store.command('read usage', (client) =>
      Promise.all(days.map((day) => client.hgetall(`${LEDGER_KEY}:usage:${day}`))),
    );
    return hashes.map((fields, i) => {
      const hours = hoursOf(fields);
      return { date: new Date((first + i) * DAY_MS).toISOString().slice(0, 10), ...sum(hours), hours };
    });
  }
}

/** The sum of several totals. */
export function sum(all: readonly Usage[]): Usage {
  const total = { ...NOTHING };
  for (const usage of all) for (const name of names) total[name] += usage[name];
  return total;
}

const names = Object.keys(NOTHING) as (keyof Usage)[];

function hoursOf(fields: Record<string, string>): (Usage & { hour: number })[] {
  return Array.from({ length: 24 }, (_, hour) => {
    const read = (name: string): [string, number] => [name, Number(fields[`${hour}:${name}`] ?? 0)];
    return { hour, ...(Object.fromEntries(names.map(read)) as unknown as Usage) };
  }).filter((usage) => names.some((name) => usage[name] !== 0));
}
