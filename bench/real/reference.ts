/** How fast the machine is at this moment, so that drift of the CPU can be taken out of the results.
 *
 * The reference is a fixed completion (256 prompt tokens, 32 output tokens, nothing cached) by a lone llama-server
 * on the same model: it exercises what a run exercises (the same matrix kernels, memory bandwidth and caches), so
 * a neighbour that steals memory bandwidth shows in it; a spin loop would only see clock speed and stolen time.
 * The spin loop is recorded too: it tells the two causes apart. */
import { complete, connect } from "../../src/load/client.ts"
import { Random } from "../../src/random.ts"
import type { Server } from "./servers.ts"

const PROMPT_TOKENS = 256
const OUTPUT_TOKENS = 32
const REPEATS = 5
const SHORT_TOKENS = 16
const NO_SLO = {
  ttftMs: Number.POSITIVE_INFINITY,
  tpotMs: Number.POSITIVE_INFINITY,
  thinkingTpotMs: Number.POSITIVE_INFINITY,
}

let nonce = 0

/** Times of one completion in ms: to the first token and to the end. */
export async function timeCompletion(
  server: Server,
  promptTokens: number,
  outputTokens: number,
): Promise<{ firstMs: number; totalMs: number }> {
  const random = new Random(Date.now(), nonce++)
  const connections = connect(server.target.url)
  const start = performance.now()
  let firstMs = Number.NaN
  const result = await complete(
    connections,
    server.target,
    {
      prompt: Array.from({ length: promptTokens }, () => random.integer(32, 256)),
      outputTokens,
      thinkingTokens: 0,
      slo: NO_SLO,
      class: null,
      session: null,
    },
    {
      timeoutMs: 120_000,
      onTokens: () => {
        if (Number.isNaN(firstMs)) firstMs = performance.now() - start
      },
    },
  )
  connections.agent.destroy()
  if (result.end !== "ok")
    throw new Error(`${server.system.name}: reference completion failed: ${result.message}`)
  return { firstMs, totalMs: performance.now() - start }
}

export interface Reference {
  /** Median time of the fixed completion. */
  batchMs: number
  /** Fixed arithmetic on one core: least of several. */
  spinMs: number
}

export async function measureReference(server: Server): Promise<Reference> {
  const times: number[] = []
  for (let i = 0; i < REPEATS; i++)
    times.push((await timeCompletion(server, PROMPT_TOKENS, OUTPUT_TOKENS)).totalMs)
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

/** Zero-load prefill time a + b·tokens (ms) on this server, through the medians at a short and a long prompt. The
 * same function serves all systems. (Attention makes it a little too generous in between.) */
export async function measureZeroLoad(
  server: Server,
  longTokens: number,
): Promise<{ ms: number; msPerToken: number }> {
  const median = async (tokens: number) => {
    const times: number[] = []
    for (let i = 0; i < 9; i++) times.push((await timeCompletion(server, tokens, 1)).firstMs)
    return times.sort((a, b) => a - b)[4]!
  }
  await median(SHORT_TOKENS)
  const [short, long] = [await median(SHORT_TOKENS), await median(longTokens)]
  const msPerToken = Math.max(0, (long - short) / (longTokens - SHORT_TOKENS))
  return { ms: Math.max(0, short - SHORT_TOKENS * msPerToken), msPerToken }
}
