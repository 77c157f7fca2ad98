/** SLO attainment by class and stage over a sliding window, and recent rates: what the page shows live.
 * Fed from the driver's effects; the window is a ring of time buckets, so memory does not grow. */
import type { Outcome, StageName } from "../core/protocol.ts"
import type { ObservedEffect } from "../replica/observed.ts"

export interface Ratio {
  total: number
  attained: number
}

export interface ClassAttainment {
  requests: Ratio
  stages: Record<StageName, Ratio>
  /** Ended requests that asked for best effort; they have no objectives. */
  bestEffort: number
  /** SLO-tier requests that ended in the best-effort tier. */
  demoted: number
  outputTokens: number
}

interface Bucket {
  /** Bucket number since time 0; a bucket whose number is too old is empty. */
  number: number
  classes: ClassAttainment[]
  tokens: number
  steps: number
  stepUs: number
}

const BUCKET_US = 1_000_000
const STAGES = ["prefill", "thinking", "answer"] as const

export class AttainmentWindow {
  readonly windowS: number
  readonly #apps: number
  readonly #buckets: Bucket[]

  /** `apps`: number of classes. `windowS`: length of the window in seconds. */
  constructor(apps: number, windowS = 300) {
    this.#apps = apps
    this.windowS = windowS
    this.#buckets = Array.from({ length: windowS }, () => emptyBucket(-1, apps))
  }

  observe(effect: ObservedEffect, nowUs: number): void {
    if (effect.type === "token") this.#bucket(nowUs).tokens += effect.count
    else if (effect.type === "finished" && (effect.reason === "stop" || effect.reason === "length"))
      this.#finished(effect.outcome, nowUs)
  }

  /** A step that ended now and took `durationUs`. */
  step(durationUs: number, nowUs: number): void {
    const bucket = this.#bucket(nowUs)
    bucket.steps++
    bucket.stepUs += durationUs
  }

  /** Sums over the last `seconds` (default: the whole window), by app. */
  byClass(nowUs: number, seconds = this.windowS): ClassAttainment[] {
    const sums = Array.from({ length: this.#apps }, emptyClass)
    for (const bucket of this.#recent(nowUs, seconds))
      for (const [app, from] of bucket.classes.entries()) add(sums[app]!, from)
    return sums
  }

  /** Rates over the last whole seconds. */
  rates(nowUs: number, seconds = 5): { tokensPerSec: number; stepMs: number; requestsPerSec: number } {
    let tokens = 0
    let steps = 0
    let stepUs = 0
    let requests = 0
    for (const bucket of this.#recent(nowUs - BUCKET_US, seconds)) {
      tokens += bucket.tokens
      steps += bucket.steps
      stepUs += bucket.stepUs
      for (const c of bucket.classes) requests += c.requests.total + c.bestEffort
    }
    return {
      tokensPerSec: tokens / seconds,
      stepMs: steps === 0 ? 0 : stepUs / steps / 1000,
      requestsPerSec: requests / seconds,
    }
  }

  #finished(outcome: Outcome, nowUs: number): void {
    const to = this.#bucket(nowUs).classes[outcome.app]
    if (to === undefined) return
    to.outputTokens += outcome.outputTokens
    if (outcome.tier === "bestEffort") {
      to.bestEffort++
      return
    }
    count(to.requests, outcome.attained)
    if (outcome.servedTier === "bestEffort") to.demoted++
    for (const stage of outcome.stages) count(to.stages[stage.stage], stage.attained)
  }

  #bucket(nowUs: number): Bucket {
    const number = Math.floor(nowUs / BUCKET_US)
    const at = number % this.#buckets.length
    let bucket = this.#buckets[at]!
    if (bucket.number !== number) bucket = this.#buckets[at] = emptyBucket(number, this.#apps)
    return bucket
  }

  #recent(nowUs: number, seconds: number): Bucket[] {
    const last = Math.floor(nowUs / BUCKET_US)
    return this.#buckets.filter((b) => b.number > last - seconds && b.number <= last && b.number >= 0)
  }
}

function emptyBucket(number: number, apps: number): Bucket {
  return { number, classes: Array.from({ length: apps }, emptyClass), tokens: 0, steps: 0, stepUs: 0 }
}

function emptyClass(): ClassAttainment {
  const ratio = () => ({ total: 0, attained: 0 })
  const stages = { prefill: ratio(), thinking: ratio(), answer: ratio() }
  return { requests: ratio(), stages, bestEffort: 0, demoted: 0, outputTokens: 0 }
}

function count(ratio: Ratio, attained: boolean): void {
  ratio.total++
  if (attained) ratio.attained++
}

function addRatio(to: Ratio, from: Ratio): void {
  to.total += from.total
  to.attained += from.attained
}

function add(to: ClassAttainment, from: ClassAttainment): void {
  addRatio(to.requests, from.requests)
  for (const stage of STAGES) addRatio(to.stages[stage], from.stages[stage])
  to.bestEffort += from.bestEffort
  to.demoted += from.demoted
  to.outputTokens += from.outputTokens
}
