/**
 * For a step that follows a refusal: should the store fail it, the refusal is told all the same. The store has logged
 * it, and what stays undone errs on the safe side: a price stays charged, an attempt stays taken.
 */
export async function bestEffort(step: Promise<unknown>): Promise<void> {
  await step.catch(() => undefined);
}
