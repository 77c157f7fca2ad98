/** The other end of thread.ts. */
import { constants, setPriority } from "node:os"
import { setTimeout as rest } from "node:timers/promises"
import { parentPort } from "node:worker_threads"
import { type Advice, advise } from "./advice.ts"
import { arrivalsIn } from "./arrival-ring.ts"
import type { Answer, Question } from "./thread.ts"

const port = parentPort!

// Whatever else wants the core goes first. Only Linux has priorities of threads: elsewhere it would be the whole server's.
if (process.platform === "linux") setPriority(0, constants.priority.PRIORITY_LOW)

port.on("message", async (question: Question) => {
  try {
    port.postMessage(await answer(question))
  } catch (error) {
    port.postMessage({ failure: (error as Error).message } satisfies Answer)
  }
})

async function answer({
  setup,
  copy,
  nowUs,
  options,
  share,
}: Question): Promise<{ advice: Advice; busyMs: number }> {
  const recording = { arrivals: arrivalsIn(copy), sinceUs: copy.sinceUs, nowUs }
  const steps = advise(setup, recording, options)
  let busyMs = 0
  for (;;) {
    const started = performance.now()
    const step = steps.next()
    const tookMs = performance.now() - started
    busyMs += tookMs
    if (step.done) return { advice: step.value, busyMs }
    await rest(tookMs * (1 / share - 1))
  }
}
