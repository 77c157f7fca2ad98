/** A simulated engine that owns its KV, as vLLM does: it is given plans, and deviates from them by chance and where its own
 * account of KV says so. It finds less of a prefix cached than planned, shortens and skips items, takes KV from requests,
 * leaves a plan alone and runs a batch of its own, and says all that. */
import type { Batch, EngineLimits, RanItem, RequestId, StepResult } from "../core/protocol.ts"
import { Random } from "../random.ts"
import type { Play, World } from "./world.ts"

/** What it does in place of a plan, or without one. */
export interface Scheduled {
  items: readonly RanItem[]
  preempted: readonly RequestId[]
}

/** How a simulated engine that owns its KV goes about its plans. */
export interface EngineWays {
  /** It does not wait for a plan, or leaves one alone, though so many plans follow it. */
  strays(following: number): boolean
  /** It tells what it has scheduled before what it has computed, every other time. */
  readonly hasty: boolean
  /** What it says it has free, in tokens; null: it does not say. */
  readonly freeTokens: number | null
  /** A number for a batch of its own. */
  nextNumber(): number
  /** The plan, as far as it goes by it. */
  schedule(batch: Batch): Scheduled
  scheduleOwn(): Scheduled
  /** A step was computed; `results` get what is in place where the core may believe otherwise. */
  landed(items: readonly RanItem[], results: StepResult[]): void
  /** Nothing of a step was computed. */
  failed(items: readonly RanItem[]): void
  evicted(ids: readonly RequestId[]): void
}

export class OwnWays implements EngineWays {
  readonly freeTokens = null
  readonly #limits: EngineLimits
  readonly #world: World
  readonly #replica: number
  readonly #random: Random
  /** How often it deviates, of all occasions. */
  readonly #share: number
  /** Tokens whose KV is in place, of each request that has any. */
  #inPlace = new Map<RequestId, number>()
  #own = 0

  constructor(limits: EngineLimits, world: World, replica: number, seed: number, share: number) {
    this.#limits = limits
    this.#world = world
    this.#replica = replica
    this.#random = new Random("own ways", seed, replica)
    this.#share = share
  }

  strays(): boolean {
    return this.#deviates(0.3)
  }

  get hasty(): boolean {
    return this.#random.uniform() < 0.5
  }

  nextNumber(): number {
    return -++this.#own
  }

  schedule({ items, evict }: Batch): Scheduled {
    this.#forgetGone()
    this.evicted(evict)
    const preempted = this.#preempts()
    const ran: RanItem[] = []
    for (const { id, position, tokens, draft, copy } of items) {
      if (this.#play(id) === null || this.#deviates(0.3)) continue
      const start = this.#startOf(id, position, copy !== undefined)
      const cap = this.#deviates() ? this.#random.integer(1, tokens + 1) : tokens
      this.#add(ran, preempted, id, start, cap, draft)
    }
    return { items: ran, preempted }
  }

  /** First come, first served, all that is there. */
  scheduleOwn(): Scheduled {
    this.#forgetGone()
    const ran: RanItem[] = []
    const preempted: RequestId[] = []
    const most = this.#random.integer(1, 6)
    for (const play of this.#world.plays.values()) {
      if (ran.length === most || this.#play(play.request.spec.id) === null) continue
      const { id } = play.request.spec
      this.#add(ran, preempted, id, this.#inPlace.get(id) ?? 0, this.#random.integer(1, 64), 0)
    }
    return { items: ran, preempted }
  }

  landed(items: readonly RanItem[], results: StepResult[]): void {
    const byId = new Map(results.map((result) => [result.id, result]))
    for (const { id, position, tokens } of items) {
      const play = this.#play(id)
      if (play === null) continue
      const result = byId.get(id)
      const reach = position + tokens + Math.max(0, (result?.tokens ?? 0) - 1)
      const lost = this.#deviates(0.3) ? this.#random.integer(0, 40) : 0
      this.#inPlace.set(id, Math.max(0, reach - lost))
      if (lost === 0) continue
      if (result !== undefined) result.computed = Math.max(0, reach - lost)
      else {
        const told = { tokens: 0, stopped: false, answeringFrom: -1, computed: Math.max(0, reach - lost) }
        results.push({ id, ...told })
      }
    }
  }

  /** What it had is computed over. */
  failed(): void {}

  evicted(ids: readonly RequestId[]): void {
    for (const id of ids) this.#inPlace.delete(id)
  }

  #deviates(share = 1): boolean {
    return this.#random.uniform() < share * this.#share
  }

  /** A request that is here and has not ended. */
  #play(id: RequestId): Play | null {
    const play = this.#world.plays.get(id)
    if (play === undefined || play.at !== this.#replica || play.cancelled) return null
    return play.output < play.request.outputTokens ? play : null
  }

  #forgetGone(): void {
    for (const id of this.#inPlace.keys()) if (this.#play(id) === null) this.#inPlace.delete(id)
  }

  /** It takes KV from some request by itself. */
  #preempts(): RequestId[] {
    if (!this.#deviates(0.3) || this.#inPlace.size === 0) return []
    const victims = [...this.#inPlace.keys()]
    const victim = victims[this.#random.integer(0, victims.length)]!
    this.#inPlace.delete(victim)
    return [victim]
  }

  /** Where a planned item begins. A prefix that was to be shared may be cached here in part only; what is planned from
   * further back is computed anew. */
  #startOf(id: RequestId, planned: number, shared: boolean): number {
    const { blockTokens } = this.#limits
    const held = this.#inPlace.get(id) ?? 0
    if (held > planned && !this.#deviates()) return planned
    if (held > 0 || !shared) return held
    return this.#deviates(3) ? blockTokens * this.#random.integer(0, planned / blockTokens) : planned
  }

  /** Up to `cap` tokens of it, where it finds room. */
  #add(
    ran: RanItem[],
    preempted: RequestId[],
    id: RequestId,
    position: number,
    cap: number,
    draft: number,
  ): void {
    const { spec } = this.#world.plays.get(id)!.request
    const known = spec.promptTokens + this.#world.plays.get(id)!.output
    const tokens = Math.min(cap, known - position)
    const samples = position + tokens === known
    const item = { id, position, tokens, draft: samples ? draft : 0 }
    if (tokens < 1 || !this.#findRoom(item, ran, preempted)) return
    const at = preempted.indexOf(id)
    // What was preempted in this very step and runs all the same starts afresh.
    if (at >= 0 && position > 0) return
    this.#inPlace.set(id, position + tokens + item.draft)
    ran.push(item)
  }

  /** Where blocks are short others lose theirs, or it does not run. */
  #findRoom(
    { id, position, tokens, draft }: RanItem,
    ran: readonly RanItem[],
    preempted: RequestId[],
  ): boolean {
    const { blockTokens, kvTokens, maxSequences, maxBatchTokens } = this.#limits
    const blocksOf = (held: number) => Math.ceil(held / blockTokens)
    const inBatch = ran.reduce((sum, item) => sum + item.tokens + item.draft, 0)
    if (inBatch + tokens + draft > maxBatchTokens) return false
    for (;;) {
      let blocks = blocksOf(position + tokens + draft)
      for (const [other, held] of this.#inPlace) if (other !== id) blocks += blocksOf(held)
      const sequences = this.#inPlace.size + (this.#inPlace.has(id) ? 0 : 1)
      if (blocks * blockTokens <= kvTokens && sequences <= maxSequences) return true
      const aboard = new Set(ran.map((item) => item.id))
      const victim = [...this.#inPlace.keys()].findLast((other) => other !== id && !aboard.has(other))
      if (victim === undefined) return false
      this.#inPlace.delete(victim)
      preempted.push(victim)
    }
  }
}
