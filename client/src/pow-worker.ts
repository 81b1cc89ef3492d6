import { solve } from './pow.js';
import type { Challenge } from './types.js';

// The worker of `createSolver`: it takes one challenge, and posts the solution. A failure becomes an error of the worker.
onmessage = ({ data }: MessageEvent<{ challenge: Challenge; first: number; step: number }>) => {
  void solve(data.challenge, data).then(postMessage, reportError);
};

export {};
