/** How long a process warms up for at its start, and what becomes of one that cannot. */
import type { Reporter } from "./reporter.ts"

/** At most: it takes one to two seconds where other programs do not have most of the processor. */
const WARM_UP_MS = 4000

/** `run` takes `forMs` at most and answers how many requests it was. One that fails makes a server slow at first, which
 * serves all the same. */
export async function warmed(run: (forMs: number) => Promise<number>, reporter: Reporter): Promise<void> {
  try {
    const requests = await run(WARM_UP_MS)
    reporter.log.debug(`warm: ${requests} made-up requests`)
  } catch (error) {
    reporter.warn(`the first requests will be slow: warming up failed (${(error as Error).message})`)
  }
}
