/** How one answer of an engine goes, told as a replica's core tells it: same deadlines, same verdicts. */
import { startRequest } from "../../core/moved.ts"
import type { FinishReason, Outcome, RequestId, RequestSpec } from "../../core/protocol.ts"
import type { LiveRequest } from "../../core/request.ts"
import { type SeenStart, startOf } from "../../core/seen.ts"
import { TimeAccount } from "../../core/time-account.ts"
import { fromArrival, type ObservedEffect } from "../../replica/observed.ts"
import type { ReadUsage } from "./answer-reader.ts"

/** More than any answer has: how long one may be is the engine's to say. */
const MOST_TOKENS = 1e9

export class Judge {
  readonly id: RequestId
  readonly #live: LiveRequest
  readonly #tell: (effect: ObservedEffect) => void
  /** All that is known of an engine of another kind: when it had it. */
  readonly #account: TimeAccount
  #isSent = false
  readonly #clock: { nowUs: number; slowUs: 0; failedUs: 0; serverUs: 0 }

  constructor(
    spec: RequestSpec,
    nowUs: number,
    zeroLoadUs: (promptTokens: number) => number,
    tell: (effect: ObservedEffect) => void,
  ) {
    this.id = spec.id
    this.#live = startRequest({ ...spec, maxOutputTokens: MOST_TOKENS }, nowUs, 0, zeroLoadUs)
    this.#tell = tell
    this.#clock = { nowUs, slowUs: 0, failedUs: 0, serverUs: 0 }
    const gaps = spec.slo.maxGapUs < Infinity
    this.#account = new TimeAccount(this.#live.arrivalUs, this.#clock, { gaps })
    this.#live.account = this.#account
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
    this.#account.waited(nowUs)
    this.#isSent = true
  }

  /** It gives its promise up. */
  turnedDown(nowUs: number): void {
    this.#clock.nowUs = nowUs
    this.#account.demoted("wontFit", "time")
  }

  /** Tokens that came where it was before, at `atUs`. */
  replay(count: number, atUs: number): void {
    if (count === 0) return
    if (this.#live.startedUs < 0) this.#live.startedUs = atUs
    // Where the time went there is not known here.
    this.#live.account = null
    this.#live.emit(count, -1, atUs, () => {})
    this.#live.account = this.#account
  }

  tokens(count: number, answering: boolean, nowUs: number): void {
    if (count === 0) return
    const first = this.#live.output === 0
    this.#ranUntil(nowUs)
    const lateUs = this.#live.emit(count, answering ? 0 : -1, nowUs, () => {})
    if (first && this.#live.tier === "slo") {
      this.#account.promised()
      this.#tell({ type: "admitted", id: this.id })
    }
    this.#tell({ type: "token", id: this.id, count, lateUs })
  }

  end(reason: FinishReason, usage: ReadUsage | null, nowUs: number): Outcome {
    this.#ranUntil(nowUs)
    const attainable = (reason === "stop" || reason === "length") && this.#live.spec.tier === "slo"
    const own = this.#live.outcome(nowUs, attainable && this.#live.output > 0)
    const promptTokens = usage?.promptTokens ?? own.promptTokens
    const outcome = fromArrival({ ...own, promptTokens, cachedTokens: usage?.cachedTokens ?? 0 })
    this.#tell({ type: "finished", id: this.id, reason, outcome })
    return outcome
  }

  #ranUntil(nowUs: number): void {
    this.#clock.nowUs = nowUs
    if (this.#isSent) this.#account.wasElsewhere()
    else this.#account.waited(nowUs)
  }
}
