/** Replays a schedule token by token against its instance: independent of every planner, it knows nothing but the
 * instance's batch-time formula and what was promised. */
import { batchSeconds, type Instance, type InstanceRequest } from "./instance.ts"
import { fromRanges, type Plan, type PlannedBatch } from "./schedule.ts"

export interface Verdict {
  /** What makes the schedule invalid, in words; empty = valid. */
  violations: string[]
  /** Tokens after their due time. Speculation yields several tokens at a time: they may be late one by one while
   * every batch ends with the pace kept, which is why these alone do not make a speculative schedule invalid. */
  lateTokens: number
}

/** Seconds: sums of durations carry rounding. */
const ROUNDING = 1e-6
const MOST_VIOLATIONS = 20
/** How often a loop is replayed at most before it must be steady. */
const MOST_LOOPS = 100

interface Served {
  request: InstanceRequest
  prefilled: number
  /** When the pace starts; Infinity before the prefill is done. */
  start: number
  /** Tokens out since (expected ones, with speculation). */
  out: number
  /** Tokens it may still produce. */
  most: number
}

export function checkPlan(instance: Instance, plan: Plan): Verdict {
  return plan.feasible ? new Replay(instance, plan).run() : { violations: [], lateTokens: 0 }
}

class Replay {
  #instance: Instance
  #plan: Plan
  #violations: string[] = []
  #late = 0
  #clock: number
  #served = new Map<number, Served>()
  #speculative: boolean

  constructor(instance: Instance, plan: Plan) {
    this.#instance = instance
    this.#plan = plan
    this.#clock = instance.now
    this.#speculative = plan.batches.some((batch) => Object.keys(batch.d).some((n) => Number(n) > 1))
  }

  run(): Verdict {
    this.#enlist()
    const { batches } = this.#plan
    for (const [i, batch] of batches.entries()) this.#step(batch, i)
    for (const { request, prefilled } of this.#served.values()) {
      if (prefilled < request.remaining) this.#fail(`request ${request.id} is never prefilled to its end`)
    }
    const jump = batches.at(-1)?.next
    if (jump !== undefined && this.#violations.length === 0) this.#loop(jump)
    batches.slice(0, -1).forEach((batch, i) => {
      if (batch.next !== undefined) this.#fail(`batch ${i}: next belongs on the last batch`)
    })
    return { violations: this.#violations, lateTokens: this.#late }
  }

  /** Running requests and accepted ones; checks the answer's own sums. */
  #enlist(): void {
    const { requests, tpots, now, mem_free } = this.#instance
    const accepted = new Set(this.#plan.accepted)
    if (accepted.size !== this.#plan.accepted.length) this.#fail("an id is accepted twice")
    let blocks = 0
    let profit = 0
    for (const request of requests) {
      if (request.new && !accepted.has(request.id)) continue
      accepted.delete(request.id)
      if (request.new) {
        blocks += request.mem
        profit += request.profit
      }
      const decoding = request.remaining === 0
      this.#served.set(request.id, {
        request,
        prefilled: 0,
        start: decoding ? Math.max(now, request.ddl) : Infinity,
        out: 0,
        most: request.max_tokens - (decoding ? Math.max(0, request.computed - request.prompt) : 0) - 1,
      })
    }
    for (const id of accepted) this.#fail(`accepted ${id} is not in the instance`)
    if (this.#plan.accepted.some((id) => !requests.find((r) => r.id === id)?.new))
      this.#fail("a running request is listed as accepted")
    if (blocks > mem_free + ROUNDING) this.#fail(`accepted requests need ${blocks} blocks of ${mem_free}`)
    if (Math.abs(profit - this.#plan.profit) > ROUNDING)
      this.#fail(`profit is ${profit}, not ${this.#plan.profit}`)
    if (tpots.length === 0) this.#fail("no tpots")
  }

  #step(batch: PlannedBatch, index: number): void {
    const load = { tokens: 0, steps: 1, requests: 0, pastTokens: 0 }
    const inBatch = new Set<number>()
    const join = (id: number): Served | undefined => {
      const served = this.#served.get(id)
      if (served === undefined) this.#fail(`batch ${index}: request ${id} is neither running nor accepted`)
      else if (inBatch.has(id)) this.#fail(`batch ${index}: request ${id} is in it twice`)
      inBatch.add(id)
      load.requests++
      if (served !== undefined) load.pastTokens += served.request.computed + served.prefilled + served.out
      return served
    }
    const end = this.#clock + batch.t
    const prefills: [Served, number][] = []
    for (const [id, tokens] of batch.p) {
      load.tokens += tokens
      const served = join(id)
      if (!(Number.isInteger(tokens) && tokens > 0)) this.#fail(`batch ${index}: ${tokens} prefill tokens`)
      if (served !== undefined) prefills.push([served, tokens])
    }
    for (const [text, ids] of Object.entries(batch.d)) {
      const verified = Number(text)
      if (!(Number.isInteger(verified) && verified > 0 && verified <= this.#mostVerified())) {
        this.#fail(`batch ${index}: ${text} tokens verified per decode`)
        continue
      }
      for (const id of fromRanges(ids)) {
        const served = join(id)
        load.tokens += verified
        load.steps = Math.max(load.steps, verified)
        if (served !== undefined) this.#decode(served, verified, end, index)
      }
    }
    for (const [served, tokens] of prefills) this.#prefill(served, tokens, end, index)
    const least = batchSeconds(this.#instance, load)
    if (batch.t < least - 1e-9) this.#fail(`batch ${index} takes ${least} s, not ${batch.t}`)
    this.#clock = end
    for (const served of this.#served.values()) this.#pace(served, index)
  }

  #prefill(served: Served, tokens: number, end: number, index: number): void {
    const { request } = served
    served.prefilled += tokens
    if (served.prefilled > request.remaining)
      this.#fail(`batch ${index}: request ${request.id} is prefilled beyond its prompt`)
    if (served.prefilled < request.remaining || served.start !== Infinity) return
    if (end > request.ddl + ROUNDING)
      this.#fail(`request ${request.id} is prefilled ${(end - request.ddl).toFixed(6)} s late`)
    served.start = Math.max(request.ddl, end)
  }

  /** Token by token, the n-th after the first is due n TPOTs after the start. */
  #decode(served: Served, verified: number, end: number, index: number): void {
    const { request } = served
    if (served.start === Infinity) {
      this.#fail(`batch ${index}: request ${request.id} decodes before its prefill is done`)
      return
    }
    const before = Math.floor(served.out + ROUNDING)
    served.out += this.#expected(verified)
    const after = Math.min(served.most, Math.floor(served.out + ROUNDING))
    for (let n = before + 1; n <= after; n++) {
      if (end <= this.#due(served, n) + ROUNDING) continue
      this.#late++
      if (!this.#speculative) this.#fail(`batch ${index}: token ${n} of request ${request.id} is late`)
    }
  }

  /** At every batch's end whatever was due before must be out. */
  #pace(served: Served, index: number): void {
    const n = Math.floor(served.out + ROUNDING) + 1
    if (n > served.most || served.start === Infinity) {
      const { request } = served
      if (served.start === Infinity && this.#clock > request.ddl + ROUNDING)
        this.#fail(`request ${request.id} is not prefilled by its deadline`)
      return
    }
    if (this.#clock > this.#due(served, n) + ROUNDING)
      this.#fail(`batch ${index}: request ${served.request.id} falls behind its pace at token ${n}`)
  }

  /** Replays the loop until a whole round gives each request what the time asks for. */
  #loop(jump: number): void {
    const { batches } = this.#plan
    const from = batches.length + jump
    if (!(Number.isInteger(jump) && jump < 0 && from >= 0)) {
      this.#fail(`next is ${jump}; it must be negative and stay within the schedule`)
      return
    }
    const round = batches.slice(from)
    if (round.some((batch) => batch.p.length > 0)) this.#fail("the loop has prefill in it")
    const seconds = round.reduce((sum, batch) => sum + batch.t, 0)
    if (seconds <= 0) this.#fail("the loop takes no time")
    for (let loop = 0; this.#violations.length === 0; loop++) {
      const before = new Map([...this.#served].map(([id, served]) => [id, served.out]))
      const started = [...this.#served.values()].every((served) => served.start <= this.#clock)
      for (const batch of round) this.#step(batch, batches.length - 1)
      const gains = [...this.#served].every(([id, served]) => {
        const tpot = this.#instance.tpots[served.request.tier]!
        return served.out >= served.most || served.out - before.get(id)! >= seconds / tpot - ROUNDING
      })
      // A request that starts later is ahead by then: it gains in every round.
      if (gains && (started || loop >= 2)) return
      if (loop >= MOST_LOOPS) {
        this.#fail("the loop does not keep every decode's pace")
        return
      }
    }
  }

  #due(served: Served, n: number): number {
    return served.start + n * this.#instance.tpots[served.request.tier]!
  }
  #mostVerified(): number {
    return Math.max(1, this.#instance.spec.max_sd)
  }
  #expected(verified: number): number {
    const { alpha } = this.#instance.spec
    return (1 - alpha ** verified) / (1 - alpha)
  }
  #fail(message: string): void {
    if (this.#violations.length < MOST_VIOLATIONS) this.#violations.push(message)
  }
}
