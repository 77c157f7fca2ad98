/** What engines wait for takes little time, but must have it at once: the planner goes before other programs of the machine, where it
 * may. */
import { getPriority, setPriority } from "node:os"

const STEPS = 10
const HIGHEST = -20

/** Whether it was allowed: as a rule to root alone. */
export function takePrecedence(get = getPriority, set: (priority: number) => void = setPriority): boolean {
  try {
    set(Math.max(HIGHEST, get() - STEPS))
    return true
  } catch {
    return false
  }
}
