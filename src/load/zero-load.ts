/** What TTFTs given as slowdowns are multiples of: the time a prompt takes on this server when it is idle. */
import { UserError } from "../errors.ts"
import { Random } from "../random.ts"
import type { ZeroLoad } from "./classes.ts"
import { complete, connect, type Target } from "./client.ts"

const SHORT_TOKENS = 16
const TIMEOUT_MS = 120_000
const NO_SLO = {
  ttftMs: Number.POSITIVE_INFINITY,
  tpotMs: Number.POSITIVE_INFINITY,
  thinkingTpotMs: Number.POSITIVE_INFINITY,
  maxGapMs: Number.POSITIVE_INFINITY,
}

let nonce = 0

/** Times of one completion of a prompt never sent before, ms: to the first token and to the end. */
export async function timeCompletion(
  target: Target,
  promptTokens: number,
  outputTokens: number,
  tokenRange = { from: 32, to: 256 },
): Promise<{ firstMs: number; totalMs: number }> {
  const random = new Random(Date.now(), nonce++)
  const prompt = Array.from({ length: promptTokens }, () => random.integer(tokenRange.from, tokenRange.to))
  const connections = connect(target.url)
  const start = performance.now()
  let firstMs = Number.NaN
  const { end, message } = await complete(
    connections,
    target,
    { prompt, outputTokens, thinkingTokens: 0, slo: NO_SLO, class: null, session: null },
    {
      timeoutMs: TIMEOUT_MS,
      onTokens: () => {
        if (Number.isNaN(firstMs)) firstMs = performance.now() - start
      },
    },
  )
  connections.agent.destroy()
  if (end !== "ok") throw new UserError(`${target.url}: measuring the idle server failed (${message || end})`)
  return { firstMs, totalMs: performance.now() - start }
}

/** Zero-load prefill time a + b·tokens (ms) through the medians at a short and a long prompt. The same function serves
 * all systems. (Attention makes it a little too generous in between.) */
export async function measureZeroLoad(
  target: Target,
  longTokens: number,
  repeats = 9,
  tokenRange?: { from: number; to: number },
): Promise<ZeroLoad> {
  const median = async (tokens: number) => {
    const times: number[] = []
    for (let i = 0; i < repeats; i++)
      times.push((await timeCompletion(target, tokens, 1, tokenRange)).firstMs)
    return times.sort((a, b) => a - b)[repeats >> 1]!
  }
  await median(SHORT_TOKENS)
  const [short, long] = [await median(SHORT_TOKENS), await median(longTokens)]
  const msPerToken = Math.max(0, (long - short) / (longTokens - SHORT_TOKENS))
  return { ms: Math.max(0, short - SHORT_TOKENS * msPerToken), msPerToken }
}
