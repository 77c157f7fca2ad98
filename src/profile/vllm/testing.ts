/** An engine that batches as vLLM does, on a known cost model and virtual time. For tests. */
import { type CostModel, shapeOf, stepUs } from "../../core/cost.ts"
import { Random } from "../../random.ts"
import type { Player, Round, StreamTimes } from "./rounds.ts"

interface Live {
  at: number
  computed: number
  output: number
}

export interface VirtualOptions {
  cost: CostModel
  maxBatchTokens?: number
  maxSequences?: number
  /** Of each step's time. */
  noise?: number
  /** What each token waits on its way, µs, at most. */
  jitterUs?: number
}

export class VirtualVllm implements Player {
  readonly #options: Required<VirtualOptions>
  readonly #random = new Random(11)
  #nowUs = 0
  played = 0

  constructor(options: VirtualOptions) {
    this.#options = { maxBatchTokens: 8192, maxSequences: 256, noise: 0.02, jitterUs: 100, ...options }
  }

  play({ streams }: Round): Promise<StreamTimes[]> {
    this.played++
    const times = streams.map(() => ({ sentUs: 0, tokens: [] as { count: number; atUs: number }[] }))
    const live: Live[] = []
    const waiting = streams.map((_, at) => at)
    const arrive = () => {
      while (waiting.length > 0 && streams[waiting[0]!]!.after <= times[0]!.tokens.length) {
        const at = waiting.shift()!
        times[at]!.sentUs = this.#nowUs
        live.push({ at, computed: 0, output: 0 })
      }
    }
    arrive()
    while (live.length > 0) {
      this.#step(live, streams, times)
      for (let i = live.length - 1; i >= 0; i--)
        if (live[i]!.output >= streams[live[i]!.at]!.outputTokens) live.splice(i, 1)
      arrive()
    }
    return Promise.resolve(times)
  }

  /** First come, first served: decodes, then as much of the prompts as the budget has room for. */
  #step(
    live: readonly Live[],
    streams: Round["streams"],
    times: { tokens: { count: number; atUs: number }[] }[],
  ): void {
    const { cost, maxBatchTokens, maxSequences, noise, jitterUs } = this.#options
    let left = maxBatchTokens
    const ran: { one: Live; tokens: number }[] = []
    for (const one of live.slice(0, maxSequences)) {
      const known = streams[one.at]!.promptTokens + one.output
      const tokens = Math.min(known - one.computed, left)
      if (tokens < 1) break
      left -= tokens
      ran.push({ one, tokens })
    }
    const items = ran.map(({ one, tokens }) => ({ position: one.computed, tokens, sample: true, draft: 0 }))
    this.#nowUs += stepUs(cost, shapeOf(items, cost)) * this.#random.lognormal(1, noise)
    for (const { one, tokens } of ran) {
      one.computed += tokens
      if (one.computed < streams[one.at]!.promptTokens + one.output) continue
      one.output++
      times[one.at]!.tokens.push({ count: 1, atUs: this.#nowUs + this.#random.uniform() * jitterUs })
    }
  }
}
