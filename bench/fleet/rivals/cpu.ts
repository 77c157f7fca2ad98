/** CPU time of a process and of those that it started: what else the machine does is not in it. */
import { readdirSync, readFileSync } from "node:fs"

/** µs so far. A process that is gone counts nothing. */
export function cpuUsOf(pid: number): number {
  return [pid, ...descendants(pid)].reduce((sum, each) => sum + ofTasks(each), 0)
}

function ofTasks(pid: number): number {
  try {
    const tasks = readdirSync(`/proc/${pid}/task`)
    return tasks.reduce((sum, task) => sum + ranNs(`/proc/${pid}/task/${task}/schedstat`), 0) / 1000
  } catch {
    return 0
  }
}

/** A thread may end while it is looked at. */
function ranNs(path: string): number {
  try {
    return Number(readFileSync(path, "utf8").split(" ")[0])
  } catch {
    return 0
  }
}

function descendants(pid: number): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue
    try {
      // The command's name may hold spaces and brackets.
      const fields = readFileSync(`/proc/${name}/stat`, "utf8")
        .replace(/^.*\) /s, "")
        .split(" ")
      parents.set(Number(name), Number(fields[1]))
    } catch {
      // It ended meanwhile.
    }
  }
  const found: number[] = []
  collect(pid, parents, found)
  return found
}

function collect(parent: number, parents: ReadonlyMap<number, number>, found: number[]): void {
  for (const [pid, its] of parents)
    if (its === parent) {
      found.push(pid)
      collect(pid, parents, found)
    }
}
