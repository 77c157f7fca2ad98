/** The paper's planner on an instance: the dynamic program, and the schedule that it stands for. */
import type { Dp, DpAnswer } from "../core/planner/dp/dp.ts"
import type { DpRequest } from "../core/planner/dp/request.ts"
import {
  AutoregressiveSegments,
  BatchTime,
  type SegmentBatch,
  type SegmentPlan,
} from "../core/planner/dp/segment.ts"
import { SpeculativeSegments } from "../core/planner/dp/speculation.ts"
import type { Instance, InstanceRequest } from "./instance.ts"
import { decodesOf, type Plan, type PlannedBatch } from "./schedule.ts"

export interface Decided extends Plan {
  /** Microseconds that the decision itself took. */
  us: number
}

/** As published. */
const MOST_BATCH_TOKENS = 16_384

/** `clockUs`: any clock in microseconds. */
export function planPaper(
  instance: Instance,
  speculate: boolean,
  margin: number,
  dp: Dp,
  clockUs: () => number,
): Decided {
  const began = clockUs()
  const segments = segmentsOf(instance, speculate, margin)
  const requests = instance.requests.map(
    (request): DpRequest => ({
      deadline: request.ddl,
      owed: request.remaining,
      tier: request.tier,
      memory: request.new ? request.mem : 0,
      profit: request.profit,
      must: !request.new,
    }),
  )
  const { now, mem_free, tpots } = instance
  const answer = dp.solve(
    requests,
    now,
    mem_free,
    segments,
    tpots.map(() => 0),
  )
  const us = clockUs() - began
  if (answer === null) return { feasible: false, accepted: [], profit: 0, us, batches: [] }
  const taken = answer.steps.map((step) => instance.requests[step.request]!)
  const accepted = taken.filter((request) => request.new).map((request) => request.id)
  accepted.sort((a, b) => a - b)
  const { profit } = answer
  return { feasible: true, accepted, profit, us, batches: new Builder(instance, segments).build(answer) }
}

function segmentsOf(instance: Instance, speculate: boolean, margin: number): SegmentPlan {
  const time = new BatchTime(piecesOf(instance, 1 + margin), MOST_BATCH_TOKENS)
  const { alpha, max_sd } = instance.spec
  return speculate
    ? new SpeculativeSegments(time, instance.tpots, alpha, max_sd)
    : new AutoregressiveSegments(time, instance.tpots)
}

/** The dumps' formula also counts requests and their context: taken at the most there can be. */
function piecesOf({ hw, hw_terms: terms, requests }: Instance, scale: number) {
  const pieces = []
  let context = 0
  for (const request of requests) context += request.prompt + request.max_tokens
  for (let i = 0; i < hw.length; i += terms) {
    const [k1, second, third, fourth, fifth] = hw.slice(i, i + terms) as number[]
    pieces.push(
      terms === 3
        ? { k1: k1! * scale, k2: second! * scale, b: third! * scale }
        : {
            k1: k1! * scale,
            k2: fourth! * scale,
            b: (fifth! + second! * requests.length + third! * context) * scale,
          },
    )
  }
  return pieces
}

/** Walks the accepted requests by deadline and hands each segment's prefill budget out in that order. */
class Builder {
  #instance: Instance
  #segments: SegmentPlan
  #decoding: InstanceRequest[] = []
  #queue: { request: InstanceRequest; left: number }[] = []
  #batches: PlannedBatch[] = []

  constructor(instance: Instance, segments: SegmentPlan) {
    this.#instance = instance
    this.#segments = segments
  }

  build(answer: DpAnswer): PlannedBatch[] {
    const taken = answer.steps.map((step) => this.#instance.requests[step.request]!)
    this.#queue = taken
      .filter((r) => r.remaining > 0)
      .map((request) => ({ request, left: request.remaining }))
    for (const [i, step] of answer.steps.entries()) {
      if (this.#queue.length === 0) break
      const counts = this.#counts()
      for (const batch of this.#segments.batches(step.time, counts, step.option)) {
        if (this.#queue.length > 0) this.#add(batch)
      }
      this.#decoding.push(taken[i]!)
    }
    this.#decoding = taken
    this.#steady()
    return this.#batches
  }

  #add(batch: SegmentBatch): void {
    const p: [number, number][] = []
    for (let room = batch.prefillTokens; room > 0 && this.#queue.length > 0; ) {
      const first = this.#queue[0]!
      const tokens = Math.min(room, first.left)
      p.push([first.request.id, tokens])
      first.left -= tokens
      room -= tokens
      if (first.left === 0) this.#queue.shift()
    }
    this.#batches.push({ t: batch.time, p, d: this.#decodes(batch) })
  }

  /** Two batches alike, the second repeated: the same whether the jump counts from the batch or from its end. */
  #steady(): void {
    const batch = this.#segments.steady(this.#counts())
    if (batch === null) return
    const steady = { t: batch.time, p: [], d: this.#decodes(batch) }
    this.#batches.push(steady, { ...steady, next: -1 })
  }

  #decodes(batch: SegmentBatch): Record<string, string> {
    const tokens = new Map<number, number>()
    for (const request of this.#decoding) {
      const n = batch.perTier[request.tier]!
      if (n > 0) tokens.set(request.id, n)
    }
    return decodesOf(tokens)
  }
  #counts(): number[] {
    const counts = this.#instance.tpots.map(() => 0)
    for (const { tier } of this.#decoding) counts[tier]!++
    return counts
  }
}
