/** What of a step's time was its own: without what other programs took while its threads waited for a core. Linux counts for
 * every thread how long it ran and waited; elsewhere nothing is known, and repeats must do. */
import { readdirSync, readFileSync } from "node:fs"

/** Begun before a step; after it `ownUs` says how much of the `us` that it took was its own. */
export interface Waits {
  begin(): { ownUs(us: number): number }
}

/** Waits of less than this share of a step are no disturbance: waking threads takes as long. */
const DISTURBED_SHARE = 0.02
/** Threads that ran at least so much of the busiest one's time were computing. */
const COMPUTING_SHARE = 0.5
/** Threads that ran or waited for so much of a step were all it depended on: no GPU, disk or lock. */
const RUNNABLE_SHARE = 0.8
const TASKS = "/proc/self/task"
const MAIN = String(process.pid)

/** Nanoseconds that a thread ran, and waited for a core. */
export interface ThreadTime {
  ranNs: number
  waitedNs: number
}
export type ThreadTimes = ReadonlyMap<string, ThreadTime>

/** Of the threads of this process. */
export const threadWaits: Waits = {
  begin() {
    const before = threadTimes()
    // Last, so that reading all the others does not count.
    const mainFrom = mainUs()
    return {
      ownUs(us) {
        const main = mainUs() - mainFrom
        return ownUs(us, main, spansOf(before, threadTimes()))
      },
    }
  },
}

/** Own time of a step of `us`, in which this thread ran for `mainUs` and the process's threads did as `spans` say (this one under
 * its process id). */
export function ownUs(us: number, mainUs: number, spans: ThreadTimes, mainId = MAIN): number {
  const main = spans.get(mainId) ?? { ranNs: 0, waitedNs: 0 }
  const others = [...spans].flatMap(([id, span]) => (id === mainId || span.ranNs <= 0 ? [] : [span]))
  const busiest = others.reduce((most, span) => (span.ranNs > most.ranNs ? span : most), NONE)
  const computing = others.filter(({ ranNs }) => ranNs >= COMPUTING_SHARE * busiest.ranNs)
  if (computing.length === 0) return us
  const waitedUs = (Math.max(...computing.map(({ waitedNs }) => waitedNs)) + main.waitedNs) / 1000
  const runnableUs = (busiest.ranNs + busiest.waitedNs + main.waitedNs) / 1000 + mainUs
  if (waitedUs < DISTURBED_SHARE * us || runnableUs < RUNNABLE_SHARE * us) return us
  // Threads of one step wait for each other by spinning: the one that was kept from running spun least.
  return Math.min(us, Math.min(...computing.map(({ ranNs }) => ranNs)) / 1000 + mainUs)
}

const NONE: ThreadTime = { ranNs: 0, waitedNs: 0 }

function spansOf(before: ThreadTimes, after: ThreadTimes): ThreadTimes {
  return new Map(
    [...after].map(([id, { ranNs, waitedNs }]) => {
      const from = before.get(id) ?? NONE
      return [id, { ranNs: ranNs - from.ranNs, waitedNs: waitedNs - from.waitedNs }]
    }),
  )
}

/** CPU time of this thread, µs. */
function mainUs(): number {
  const { user, system } = process.threadCpuUsage?.() ?? { user: 0, system: 0 }
  return user + system
}

/** Empty where the system does not tell. */
function threadTimes(): Map<string, ThreadTime> {
  const times = new Map<string, ThreadTime>()
  for (const thread of listed()) {
    const time = parseSchedstat(read(`${TASKS}/${thread}/schedstat`))
    if (time !== null) times.set(thread, time)
  }
  return times
}

/** "ran waited slices", in ns. */
export function parseSchedstat(text: string): ThreadTime | null {
  const match = /^(\d+) (\d+) \d+\s*$/.exec(text)
  return match === null ? null : { ranNs: Number(match[1]), waitedNs: Number(match[2]) }
}

function listed(): string[] {
  try {
    return readdirSync(TASKS)
  } catch {
    return []
  }
}

/** A thread may end between being listed and being read. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}
