/** Keeps the accounts of all requests of a replica, and the engine's clock that they share: what waits is written up only when
 * something happens to it, so a step costs as much as it has items. */
import { attentionPairs, type CostModel, outputsOf, type StepShape, stepUs } from "./cost.ts"
import type { Airborne } from "./flight.ts"
import type { BatchItem } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"
import { type EngineClock, type StepShare, TimeAccount } from "./time-account.ts"

/** A step that is being booked. Times in µs. */
interface Booked {
  beganUs: number
  endedUs: number
  /** Of the time between, what the engine did not compute in; and what it took beyond its prediction. */
  serverUs: number
  slowUs: number
  items: number
  /** What was predicted over what the cost model says: that is how it is for parts of it as well. */
  scale: number
}

/** Decodes of about the same length take the same time alone: so many tokens apart, up to so many lengths. */
const LENGTH_SHIFT = 8
const LENGTHS = 512

export class Bookkeeper {
  readonly clock: EngineClock = { nowUs: 0, slowUs: 0, failedUs: 0, serverUs: 0 }
  /** Before the step that is being booked. */
  readonly #before: EngineClock = { ...this.clock }
  readonly #step: Booked = { beganUs: 0, endedUs: 0, serverUs: 0, slowUs: 0, items: 0, scale: 1 }
  readonly #share: StepShare = {
    ...{ serverUs: 0, slowUs: 0, workUs: 0, ownUs: 0, refusedUs: 0, recomputed: 0 },
  }
  readonly #alone: StepShape = {
    ...{ tokens: 0, sequences: 1, passes: 1, fastPairs: 0, slowPairs: 0, outputs: 0, specSteps: 0 },
  }
  #cost: CostModel
  /** What a decode of some length would take alone, µs, and in which booking that was asked. */
  readonly #decodeUs = new Float64Array(LENGTHS)
  readonly #askedIn = new Uint32Array(LENGTHS)
  #booking = 0
  /** When the last step ended; and when the last one failed after which nothing ran yet, or -1. */
  #landedUs = 0
  #failedAtUs = -1

  constructor(cost: CostModel) {
    this.#cost = cost
  }

  believe(cost: CostModel): void {
    this.#cost = cost
  }

  opened(request: LiveRequest): void {
    const { arrivalUs, waits, spec } = request
    const gaps = spec.slo.maxGapUs < Infinity
    request.account = new TimeAccount(arrivalUs, this.clock, { held: waits, gaps })
  }

  /** A batch begins, or will behind those in flight. */
  takesOff(): void {
    const { nowUs } = this.clock
    if (this.#failedAtUs < 0) return
    this.clock.failedUs += nowUs - this.#failedAtUs
    this.#failedAtUs = -1
  }

  failed({ tookOffUs }: Airborne): void {
    const { nowUs } = this.clock
    this.clock.failedUs += nowUs - Math.max(tookOffUs, this.#landedUs)
    this.#landedUs = this.#failedAtUs = nowUs
  }

  /** A step ended that took the engine `durationUs`. */
  landed({ tookOffUs, items, shape, predictedUs }: Airborne, durationUs: number): void {
    const { nowUs } = this.clock
    const step = this.#step
    this.#booking++
    Object.assign(this.#before, this.clock)
    step.beganUs = Math.min(nowUs, Math.max(tookOffUs, this.#landedUs))
    step.endedUs = this.#landedUs = nowUs
    const spanUs = nowUs - step.beganUs
    step.serverUs = Math.max(0, Math.round(spanUs - durationUs))
    step.slowUs = predictedUs > 0 ? Math.round(spanUs - step.serverUs - predictedUs) : 0
    step.items = items.length
    const modelUs = stepUs(this.#cost, shape)
    step.scale = modelUs > 0 && predictedUs > 0 ? predictedUs / modelUs : 1
    this.clock.serverUs += step.serverUs
    this.clock.slowUs += step.slowUs
  }

  /** A request's item of that step, of which `tokens` tokens came out; `reallyDrafted`: see StepResult. `kept`: it has not
   * lost its KV since. */
  computed(
    request: LiveRequest,
    item: BatchItem,
    tokens: number,
    reallyDrafted = item.draft,
    kept = true,
  ): void {
    const { account } = request
    if (account === null) return
    const step = this.#step
    if (account.atUs < step.beganUs) account.waited(step.beganUs, this.#before)
    const share = this.#share
    const spanUs = step.endedUs - account.atUs
    this.#divide(spanUs)
    const drafted = Math.min(item.draft, reallyDrafted)
    const { workUs } = share
    const aloneUs = step.items === 1 ? workUs : this.#aloneUs(item, drafted)
    share.ownUs = Math.min(workUs, aloneUs)
    const refused = tokens > 0 ? drafted - (tokens - 1) : 0
    share.refusedUs = refused > 0 ? Math.min(share.ownUs, this.#moreUs(item, drafted, refused)) : 0
    const { lostTokens } = account
    share.recomputed =
      lostTokens > item.position ? Math.min(1, (lostTokens - item.position) / item.tokens) : 0
    account.stepped(share, request.output > 0)
    if (kept && lostTokens > 0) account.has(item.position + item.tokens)
  }

  /** What so many of its drafts add to what it would take alone. */
  #moreUs(item: BatchItem, drafted: number, of: number): number {
    return Math.max(0, this.#aloneUs(item, drafted) - this.#aloneUs(item, drafted - of))
  }

  /** What of the last `spanUs` of the step was what: all of it, as a rule. */
  #divide(spanUs: number): void {
    const { serverUs, slowUs, beganUs, endedUs } = this.#step
    const share = this.#share
    const wholeUs = endedUs - beganUs
    share.serverUs = Math.min(serverUs, spanUs)
    share.slowUs =
      spanUs === wholeUs ? slowUs : Math.min(spanUs - share.serverUs, Math.round((slowUs * spanUs) / wholeUs))
    share.workUs = spanUs - share.serverUs - share.slowUs
  }

  /** What the step would have taken with this item alone. */
  #aloneUs(item: BatchItem, draft: number): number {
    const length = item.position >> LENGTH_SHIFT
    if (item.tokens > 1 || draft > 0 || length >= LENGTHS) return this.#modelUs(item, draft)
    // Most items are decodes: the model is asked once for those of a length.
    if (this.#askedIn[length] !== this.#booking) {
      this.#askedIn[length] = this.#booking
      this.#decodeUs[length] = this.#modelUs(item, 0)
    }
    return this.#decodeUs[length]!
  }

  #modelUs(item: BatchItem, draft: number): number {
    const { position, tokens } = item
    const shape = this.#alone
    const n = tokens + draft
    shape.tokens = n
    const pairs = attentionPairs(position, n)
    const fast = n >= this.#cost.fastPassTokens
    shape.fastPairs = fast ? pairs : 0
    shape.slowPairs = fast ? 0 : pairs
    shape.outputs = outputsOf(item, draft)
    shape.specSteps = draft
    return Math.round(this.#step.scale * stepUs(this.#cost, shape))
  }
}
