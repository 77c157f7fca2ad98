/** STALL_MS=n: test processes, and all that they start, stand still now and then for up to so long, as where a machine gives them no time, while
 * others go on. What holds on a quick machine only is found here, not by a commit that it turns down. */
import { delimiter, join } from "node:path"

const mostMs = Number(process.env.STALL_MS)
const [SHORTEST_MS, LONGEST_MS] = [20, 520]
const cell = new Int32Array(new SharedArrayBuffer(4))
// Some tests have timers of their own.
const { setTimeout } = globalThis

function later(): void {
  const ms = SHORTEST_MS + (LONGEST_MS - SHORTEST_MS) * Math.random()
  setTimeout(() => {
    // Seldom for long.
    Atomics.wait(cell, 0, 0, mostMs * Math.random() ** 2)
    later()
  }, ms).unref()
}

const { NODE_OPTIONS = "", PYTHONPATH = "" } = process.env
const own = `--import ${import.meta.url}`
if (!NODE_OPTIONS.includes(own)) process.env.NODE_OPTIONS = `${NODE_OPTIONS} ${own}`
const python = join(import.meta.dirname, "python-stalls")
if (!PYTHONPATH.includes(python))
  process.env.PYTHONPATH = [python, PYTHONPATH].filter((path) => path !== "").join(delimiter)
later()
