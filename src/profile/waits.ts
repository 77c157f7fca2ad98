/** How long the engine's threads waited for a core while a step ran: what another program took, not the step. Linux counts it
 * for every thread; elsewhere nothing is known, and repeats must do. */
import { readdirSync, readFileSync } from "node:fs"

/** Begun before a step; `endUs` after it: µs that the step waited. */
export interface Waits {
  begin(): { endUs(): number }
}

/** Threads that ran at least so much of the busiest one's time were computing; the others' waits held nothing up. */
const COMPUTING_SHARE = 0.5
const TASKS = "/proc/self/task"
/** However long it waited, so much of a step's time was its own. */
const LEAST_OWN_SHARE = 0.1

/** Nanoseconds that a thread ran, and waited for a core. */
export interface ThreadTime {
  ranNs: number
  waitedNs: number
}

/** Of the threads of this process. */
export const threadWaits: Waits = {
  begin() {
    const before = threadTimes()
    return { endUs: () => waitedUs(before, threadTimes()) }
  },
}

/** What a step of `us` took of its own, where it waited so long, µs. */
export function ownUs(us: number, waitedUs: number): number {
  return Math.max(LEAST_OWN_SHARE * us, us - waitedUs)
}

/** The longest wait among the threads that were computing between two readings, µs. */
export function waitedUs(
  before: ReadonlyMap<string, ThreadTime>,
  after: ReadonlyMap<string, ThreadTime>,
): number {
  const spans = [...after].map(([thread, { ranNs, waitedNs }]) => {
    const from = before.get(thread) ?? { ranNs: 0, waitedNs: 0 }
    return { ranNs: ranNs - from.ranNs, waitedNs: waitedNs - from.waitedNs }
  })
  const busiest = Math.max(0, ...spans.map(({ ranNs }) => ranNs))
  const computing = spans.filter(({ ranNs }) => ranNs > 0 && ranNs >= COMPUTING_SHARE * busiest)
  return Math.max(0, ...computing.map(({ waitedNs }) => waitedNs)) / 1000
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
