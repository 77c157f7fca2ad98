/** For tests of what happens by and by: waits for it as long as a busy machine may take. */
import { vi } from "vitest"

/** Resolves once `fn` does not throw. */
export function until<T>(fn: () => T | Promise<T>, options: { timeout?: number } = {}): Promise<T> {
  return vi.waitFor(fn, { timeout: 60_000, interval: 5, ...options })
}
