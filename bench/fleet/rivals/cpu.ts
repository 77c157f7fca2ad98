/** CPU time of a process and of those that it started: what else the machine does is not in it. */
import { readdirSync, readFileSync } from "node:fs"

/** µs so far. A process that is gone counts nothing. */
export function cpuUsOf(pid: number): number {
  return [pid, ...descendants(pid)].reduce((sum, each) => sum + sumOf(tasksOf(each)), 0)
}

/** µs so far of its threads and of those of all that it started, by the thread's name. */
export function cpuUsByThread(pid: number): Map<string, number> {
  const found = new Map<string, number>()
  for (const process of [pid, ...descendants(pid)])
    for (const { name, us } of tasksOf(process)) found.set(name, (found.get(name) ?? 0) + us)
  return found
}

interface Task {
  name: string
  us: number
}

const sumOf = (tasks: readonly Task[]) => tasks.reduce((sum, { us }) => sum + us, 0)

function tasksOf(pid: number): Task[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map((task) => taskOf(`/proc/${pid}/task/${task}`))
  } catch {
    return []
  }
}

/** A thread may end while it is looked at. */
function taskOf(path: string): Task {
  try {
    const us = Number(readFileSync(`${path}/schedstat`, "utf8").split(" ")[0]) / 1000
    return { name: readFileSync(`${path}/comm`, "utf8").trim(), us }
  } catch {
    return { name: "", us: 0 }
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
