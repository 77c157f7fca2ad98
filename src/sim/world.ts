/** What only the simulated world knows of requests: how long they really get, and which drafts are accepted. */
import type { BatchItem, RequestId, RequestSpec, StepResult } from "../core/protocol.ts"
import { acceptedTokens } from "./accepted.ts"

/** One request of a simulated workload. */
export interface SimRequest {
  atUs: number
  spec: RequestSpec
  /** Output tokens after which it stops by itself (at most spec.maxOutputTokens). */
  outputTokens: number
  /** Of these the first so many are thinking. */
  thinkingTokens?: number
  /** Cancelled at this time, if still there. */
  cancelAtUs?: number
  /** Probability that a drafted token is accepted. Default 0.7, the paper's. */
  acceptance?: number
  /** Chain hashes of the full KV blocks of prompt and output, so that a later round finds the output's KV too. */
  blocks?: readonly number[]
}

/** A request under way. */
export interface Play {
  request: SimRequest
  /** Tokens produced. */
  output: number
  /** The replica it is at; -1 before it is routed and while its KV is on the way. */
  at: number
  /** Times it was re-offered after being turned down. */
  moves: number
  /** It is to end wherever it comes to be. */
  cancelled: boolean
}

/** The tokens of a step, and whose they are, in the same order. */
export interface Yield {
  results: StepResult[]
  plays: Play[]
}

const DEFAULT_ACCEPTANCE = 0.7

export class World {
  readonly plays = new Map<RequestId, Play>()
  #seed: number
  #blockTokens: number

  constructor(seed: number, blockTokens: number) {
    this.#seed = seed
    this.#blockTokens = blockTokens
  }

  enter(request: SimRequest): Play {
    const play: Play = { request, output: 0, at: -1, moves: 0, cancelled: false }
    this.plays.set(request.spec.id, play)
    return play
  }

  /** Whose the items are, in their order. */
  aboard(items: readonly BatchItem[]): (Play | undefined)[] {
    return items.map(({ id }) => this.plays.get(id))
  }

  /** What a step with these items yields, of requests of which some may have ended meanwhile. */
  play(items: readonly BatchItem[], aboard: readonly (Play | undefined)[]): Yield {
    const results: StepResult[] = []
    const plays: Play[] = []
    items.forEach((item, i) => {
      const play = aboard[i]
      if (!item.sample || play === undefined) return
      results.push(this.#sampled(item, play))
      plays.push(play)
    })
    return { results, plays }
  }

  /** The step succeeded: its tokens exist. */
  happened({ results, plays }: Yield): void {
    for (let i = 0; i < plays.length; i++) plays[i]!.output += results[i]!.tokens
  }

  /** The accepted drafts and the sure token, up to where the request stops by itself. */
  #sampled({ id, draft }: BatchItem, { request, output }: Play): StepResult {
    const accepted = acceptedTokens(this.#seed, id, output, draft, request.acceptance ?? DEFAULT_ACCEPTANCE)
    const tokens = Math.min(1 + accepted, request.outputTokens - output)
    const answerAt = (request.thinkingTokens ?? 0) - output
    const answering = request.spec.thinking && answerAt >= 0 && answerAt < tokens
    const stopped = output + tokens >= request.outputTokens
    const result: StepResult = { id, tokens, stopped, answeringFrom: answering ? answerAt : -1 }
    if (request.blocks !== undefined) {
      const known = request.spec.promptTokens + output
      const block = (n: number) => Math.floor(n / this.#blockTokens)
      result.prefix = request.blocks.slice(block(known), block(known + tokens))
    }
    return result
  }
}
