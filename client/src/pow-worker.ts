import { solve } from './pow.js';
import type { Challenge } from './types.js';

// The worker of `createSolver`: it takes one challenge, and posts the solution or null.
onmessage = async ({ data }: MessageEvent<{ challenge: Challenge; first: number; step: number }>) => {
  postMessage(await solve(data.challenge, data).catch(() => null));
};

export {};
