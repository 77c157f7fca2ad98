/** Loaded before the server: notes every round of its event loop that took the thread much CPU time, which, unlike what a
 * client sees, does not depend on what else runs on the machine. Collects garbage when told to. */
import { appendFileSync } from "node:fs"

const FILE = process.env.HOSTILE_ROUNDS!
const NOTED_MS = 5
const cpuMs = () => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

let last = cpuMs()
setInterval(() => {
  const now = cpuMs()
  if (now - last > NOTED_MS) appendFileSync(FILE, `${Date.now()} ${(now - last).toFixed(1)}\n`)
  last = cpuMs()
}, 1).unref()
process.on("SIGUSR2", () => globalThis.gc?.())
