/** How fast the machine is at this moment, so that drift of the CPU can be taken out of the results.
 *
 * The reference is a fixed completion (256 prompt tokens, 32 output tokens, nothing cached) by a lone llama-server
 * on the same model: it exercises what a run exercises (the same matrix kernels, memory bandwidth and caches), so
 * a neighbour that steals memory bandwidth shows in it; a spin loop would only see clock speed and stolen time.
 * The spin loop is recorded too: it tells the two causes apart. */
import { timeCompletion } from "../../src/load/zero-load.ts"
import type { Server } from "./servers.ts"

const PROMPT_TOKENS = 256
const OUTPUT_TOKENS = 32
const REPEATS = 5
export interface Reference {
  /** Median time of the fixed completion. */
  batchMs: number
  /** Fixed arithmetic on one core: least of several. */
  spinMs: number
}

export async function measureReference(server: Server): Promise<Reference> {
  const times: number[] = []
  for (let i = 0; i < REPEATS; i++)
    times.push((await timeCompletion(server.target, PROMPT_TOKENS, OUTPUT_TOKENS)).totalMs)
  times.sort((a, b) => a - b)
  return { batchMs: times[Math.floor(REPEATS / 2)]!, spinMs: Math.min(spin(), spin(), spin()) }
}

function spin(): number {
  const start = performance.now()
  let x = 1
  for (let i = 0; i < 10_000_000; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0
  if (x === 0) throw new Error("unreachable")
  return performance.now() - start
}
