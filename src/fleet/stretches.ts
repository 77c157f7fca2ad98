/** Cuts what is seen of an engine's streams into stretches of known length in steps: from one token of a stream to a
 * later one of the same. Several steps long, so that tokens that the network brings together move no more than its edges. */
import type { RequestId } from "../core/protocol.ts"
import type { Stretch } from "./cost-fit.ts"

/** Steps and time of a stretch, at least. */
const LEAST_STEPS = 8
const LEAST_US = 20_000
/** Of an answer that ends before. */
const SHORT_STEPS = 4
/** A pause so much longer than the stretch's mean step is not one of its steps: the stretch is dropped. */
const MOST_PAUSE = 20

/** What was computed so far, all requests together. */
export interface Work {
  promptTokens: number
  promptSteps: number
  decodeTokens: number
  pairs: number
}

export class Stretches {
  #pilot: RequestId | null = null
  #fromUs = 0
  #lastUs = 0
  #longestUs = 0
  #steps = 0
  #before: Work = { promptTokens: 0, promptSteps: 0, decodeTokens: 0, pairs: 0 }
  #found: (stretch: Stretch, promptTokens: number) => void
  #mixed: boolean

  constructor(mixed: boolean, found: (stretch: Stretch, promptTokens: number) => void) {
    this.#mixed = mixed
    this.#found = found
  }

  /** A stream had `count` tokens; `work` says what was computed up to now. `others`: sequences of other gateways. */
  tokens(id: RequestId, count: number, work: Work, others: number, nowUs: number): void {
    if (this.#pilot === null) this.#start(id, work, nowUs)
    if (id !== this.#pilot || nowUs === this.#fromUs) return
    this.#steps += count
    this.#longestUs = Math.max(this.#longestUs, nowUs - this.#lastUs)
    this.#lastUs = nowUs
    const us = nowUs - this.#fromUs
    if (this.#steps < LEAST_STEPS || us < LEAST_US) return
    if (!this.#paused(us)) this.#close(work, others, us)
    this.#start(id, work, nowUs)
  }

  /** Nothing more comes of it. Short answers say something, too. */
  ended(id: RequestId, work: Work, others: number): void {
    if (id !== this.#pilot) return
    const us = this.#lastUs - this.#fromUs
    if (this.#steps >= SHORT_STEPS && us >= LEAST_US && !this.#paused(us)) this.#close(work, others, us)
    this.#pilot = null
  }

  /** It stood still meanwhile. */
  #paused(us: number): boolean {
    return this.#longestUs >= (MOST_PAUSE * us) / this.#steps
  }

  #start(id: RequestId, work: Work, nowUs: number): void {
    this.#pilot = id
    this.#fromUs = this.#lastUs = nowUs
    this.#longestUs = this.#steps = 0
    this.#before = { ...work }
  }

  #close(work: Work, others: number, us: number): void {
    const before = this.#before
    const promptTokens = work.promptTokens - before.promptTokens
    const promptSteps = work.promptSteps - before.promptSteps
    const decodes = work.decodeTokens - before.decodeTokens + others * this.#steps
    const stretch = {
      entries: 0,
      steps: this.#steps + (this.#mixed ? 0 : promptSteps),
      tokens: decodes + promptTokens,
      sequences: decodes + promptSteps,
      pairs: work.pairs - before.pairs,
      us,
    }
    this.#found(stretch, promptTokens)
  }
}
