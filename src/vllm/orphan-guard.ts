/** A small process that outlives its starter by seconds: it ends the process groups that are left when the starter is gone,
 * however that went. Told on its standard input, a line each: `+<group>` to watch one, `-<group>` to forget it. */
import { createInterface } from "node:readline"

/** Between asking a group to end and ending it. */
const GRACE_MS = 5000
const CHECK_MS = 100

const groups = new Set<number>()

/** False where the group is gone. */
function send(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-group, signal)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

function end(): void {
  for (const group of groups) send(group, "SIGTERM")
  const lateMs = performance.now() + GRACE_MS
  const check = () => {
    for (const group of groups) if (!send(group, 0)) groups.delete(group)
    const late = performance.now() >= lateMs
    if (late) for (const group of groups) send(group, "SIGKILL")
    // Dead ones that nothing waits for stay in their group.
    if (late || groups.size === 0) process.exit(0)
    setTimeout(check, CHECK_MS)
  }
  check()
}

// It ends by its input alone: signals of a terminal are for the programs that it watches over.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {})

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const group = Number(line.slice(1))
    if (!Number.isInteger(group) || group < 2) return
    if (line.startsWith("+")) groups.add(group)
    else groups.delete(group)
  })
  .on("close", end)
