/** Whether tests of many runs make as many as docs/reliability.md tells of, or as few as fit into every `npm test`. */
export const full = process.env.SCALE === 'full';

/** Prints what was counted past Jest, which would hide it. */
export function figures(line: string): void {
  process.stdout.write(`${line}\n`);
}
