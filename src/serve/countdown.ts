/** One call for the last of several ends. */

/** Calls `done` when it has been called so often. */
export function countdown(count: number, done: () => void): () => void {
  let left = count
  return () => {
    if (--left === 0) done()
  }
}
