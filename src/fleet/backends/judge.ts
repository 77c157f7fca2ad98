/** How one answer of an engine goes, told as a replica's core tells it: same deadlines, same verdicts. */
import { startRequest } from "../../core/moved.ts"
import type { FinishReason, Outcome, RequestId, RequestSpec } from "../../core/protocol.ts"
import type { LiveRequest } from "../../core/request.ts"
import { type SeenStart, startOf } from "../../core/seen.ts"
import { fromArrival, type ObservedEffect } from "../../replica/observed.ts"
import type { ReadUsage } from "./answer-reader.ts"

/** More than any answer has: how long one may be is the engine's to say. */
const MOST_TOKENS = 1e9

export class Judge {
  readonly id: RequestId
  readonly #live: LiveRequest
  readonly #tell: (effect: ObservedEffect) => void

  constructor(
    spec: RequestSpec,
    nowUs: number,
    zeroLoadUs: (promptTokens: number) => number,
    tell: (effect: ObservedEffect) => void,
  ) {
    this.id = spec.id
    this.#live = startRequest({ ...spec, maxOutputTokens: MOST_TOKENS }, nowUs, 0, zeroLoadUs)
    this.#tell = tell
  }

  /** Of its first token, absolute µs; far ahead without an objective. */
  get deadlineUs(): number {
    return this.#live.deadlineUs
  }

  /** Of its next token, absolute µs; far ahead without an objective. */
  get dueUs(): number {
    return this.#live.dueUs
  }

  /** How it began, once it was sent. */
  get start(): SeenStart {
    return (
      startOf(this.#live) ?? {
        ttftUs: this.#live.deadlineUs - this.#live.arrivalUs,
        queuedUs: 0,
        cachedTokens: 0,
      }
    )
  }

  /** It goes to the engine. */
  sent(nowUs: number): void {
    if (this.#live.startedUs < 0) this.#live.startedUs = nowUs
  }

  /** Tokens that came where it was before, at `atUs`. */
  replay(count: number, atUs: number): void {
    if (count === 0) return
    this.sent(atUs)
    this.#live.emit(count, -1, atUs, () => {})
  }

  tokens(count: number, answering: boolean, nowUs: number): void {
    if (count === 0) return
    const first = this.#live.output === 0
    const lateUs = this.#live.emit(count, answering ? 0 : -1, nowUs, () => {})
    if (first && this.#live.tier === "slo") this.#tell({ type: "admitted", id: this.id })
    this.#tell({ type: "token", id: this.id, count, lateUs })
  }

  end(reason: FinishReason, usage: ReadUsage | null, nowUs: number): Outcome {
    const attainable = (reason === "stop" || reason === "length") && this.#live.spec.tier === "slo"
    const own = this.#live.outcome(nowUs, attainable && this.#live.output > 0)
    const promptTokens = usage?.promptTokens ?? own.promptTokens
    const outcome = fromArrival({ ...own, promptTokens, cachedTokens: usage?.cachedTokens ?? 0 })
    this.#tell({ type: "finished", id: this.id, reason, outcome })
    return outcome
  }
}
