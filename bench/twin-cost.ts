/** What an offer of a twin costs, µs, by what its engine has: `node bench/twin-cost.ts`. Timings: run it on quiet cores. */
import { specOf } from "../src/core/testing.ts"
import { ENGINE_RULES } from "../src/fleet/engine-rules.ts"
import { Twin } from "../src/fleet/twin.ts"

const REPEATS = 2000

/** A twin whose engine decodes so many, while so many prompts wait; and the time of its last event, µs. */
function busy(running: number, waiting: number): { twin: Twin; nowUs: number } {
  const twin = new Twin({ rules: { ...ENGINE_RULES.vllm, maxSequences: 1024 } })
  let nowUs = 0
  for (let id = 0; id < running; id++) {
    twin.sent(id, specOf(id, { promptTokens: 500, maxOutputTokens: 1000 }), ++nowUs)
    twin.tokens(id, 1, ++nowUs)
  }
  for (let id = running; id < running + waiting; id++)
    twin.sent(id, specOf(id, { promptTokens: 500, maxOutputTokens: 1000 }), ++nowUs)
  return { twin, nowUs }
}

console.log("| running | waiting | p50 | p99 |\n| --- | --- | --- | --- |")
for (const [running, waiting] of [
  [0, 0],
  [16, 2],
  [64, 4],
  [256, 16],
  [1000, 64],
] as const) {
  const { twin, nowUs } = busy(running, waiting)
  const times = Array.from({ length: REPEATS }, (_, i) => {
    // Another one each time: the answer to the last is kept.
    const offered = specOf(99_999 + i, { promptTokens: 500, maxOutputTokens: 1000 })
    const beganMs = performance.now()
    twin.offer(offered, nowUs + i)
    return (performance.now() - beganMs) * 1000
  }).sort((a, b) => a - b)
  const at = (share: number) => times[Math.floor(share * REPEATS)]!.toFixed(0)
  console.log(`| ${running} | ${waiting} | ${at(0.5)} µs | ${at(0.99)} µs |`)
}
