/** Programmer errors in the core stop at once: a scheduler that goes on from a wrong state loses requests. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`)
}
