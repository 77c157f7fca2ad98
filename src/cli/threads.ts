/** How many threads the engine gets when the user does not say. */
import { readdirSync, readFileSync } from "node:fs"
import { availableParallelism, cpus } from "node:os"

/** Physical cores less one, at least one: the prebuilt libraries spin while they wait, so a thread that shares
 * a core with the event loop or with its hyper-thread slows every step. */
export function defaultThreads(): number {
  return Math.max(1, Math.min(physicalCores(), availableParallelism()) - 1)
}

function physicalCores(): number {
  const logical = Math.max(1, cpus().length)
  if (process.platform === "darwin") return logical
  const base = "/sys/devices/system/cpu"
  try {
    const cores = readdirSync(base)
      .filter((name) => /^cpu\d+$/.test(name))
      .map((name) => readFileSync(`${base}/${name}/topology/thread_siblings_list`, "utf8").trim())
    if (cores.length > 0) return new Set(cores).size
  } catch {
    // No such files (not Linux, or hidden): guess below.
  }
  return process.arch === "x64" && logical > 2 ? Math.ceil(logical / 2) : logical
}
