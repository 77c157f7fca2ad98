/** A simulated engine that goes by its plans and owns its KV in a pool of blocks, as vLLM does where nothing goes wrong: it has
 * less free than the core accounts for, since a prefix may be there more than once and refused drafts keep their blocks, and
 * finds less of a prefix where its cache had to go. A plan that does not fit what it has is refused: the audit of how the core
 * counts. */
import { assert } from "../core/assert.ts"
import type { Batch, EngineLimits, RanItem, RequestId, StepResult } from "../core/protocol.ts"
import { Random } from "../random.ts"
import { BlockPool } from "./block-pool.ts"
import type { EngineWays, Scheduled } from "./own-ways.ts"
import type { Play, World } from "./world.ts"

export class PooledWays implements EngineWays {
  readonly #limits: EngineLimits
  readonly #world: World
  readonly #replica: number
  readonly #random: Random
  readonly #pool: BlockPool
  /** Tokens whose KV is in place, of each request that holds any. */
  readonly #inPlace = new Map<RequestId, number>()

  constructor(limits: EngineLimits, world: World, replica: number, seed: number) {
    this.#limits = limits
    this.#world = world
    this.#replica = replica
    this.#random = new Random("pooled ways", seed, replica)
    this.#pool = new BlockPool(Math.floor(limits.kvTokens / limits.blockTokens))
  }

  /** Some plans have others made in their place, but none that others count on. */
  strays(following: number): boolean {
    return following === 0 && this.#random.uniform() < 0.1
  }

  get hasty(): boolean {
    return this.#random.uniform() < 0.5
  }

  /** What it has free, in tokens. */
  get freeTokens(): number {
    this.#forgetGone()
    return this.#pool.free * this.#limits.blockTokens
  }

  nextNumber(): number {
    assert(false, "it runs nothing without a plan")
  }
  scheduleOwn(): Scheduled {
    return { items: [], preempted: [] }
  }

  schedule({ number, items, evict }: Batch): Scheduled {
    this.#forgetGone()
    this.evicted(evict)
    // What has more in place than the plan counts on starts afresh.
    this.evicted(items.flatMap(({ id, position }) => ((this.#inPlace.get(id) ?? 0) > position ? [id] : [])))
    const ran: RanItem[] = []
    for (const { id, position, tokens, draft } of items) {
      const play = this.#play(id)
      if (play === null) continue
      const start = this.#startOf(play, position)
      const known = play.request.spec.promptTokens + play.output
      const count = Math.min(tokens, known - start)
      const drafts = start + count === known ? draft : 0
      this.#place(number, play, start, count, drafts)
      ran.push({ id, position: start, tokens: count, draft: drafts })
    }
    return { items: ran, preempted: [] }
  }

  landed(items: readonly RanItem[], results: StepResult[]): void {
    const yielded = new Map(results.map(({ id, tokens }) => [id, tokens]))
    for (const { id, position, tokens } of items) {
      const play = this.#play(id)
      if (play === null || !this.#pool.holds(id)) continue
      this.#inPlace.set(id, position + tokens + Math.max(0, (yielded.get(id) ?? 0) - 1))
      this.#fill(play)
    }
  }

  failed(items: readonly RanItem[]): void {
    for (const { id, position } of items) if (this.#pool.holds(id)) this.#inPlace.set(id, position)
  }

  evicted(ids: readonly RequestId[]): void {
    for (const id of ids) {
      this.#pool.release(id)
      this.#inPlace.delete(id)
    }
  }

  /** A request that is here and has not ended. */
  #play(id: RequestId): Play | null {
    const play = this.#world.plays.get(id)
    if (play === undefined || play.at !== this.#replica || play.cancelled) return null
    return play.output < play.request.outputTokens ? play : null
  }

  #forgetGone(): void {
    this.evicted([...this.#pool.holders].filter((id) => this.#play(id) === null))
  }

  /** Where an item begins: where it is, or after what is cached of it, but no further than planned. */
  #startOf(play: Play, planned: number): number {
    const { id } = play.request.spec
    if (this.#pool.holds(id)) return this.#inPlace.get(id)!
    const { blockTokens } = this.#limits
    return this.#pool.found(hashesOf(play, planned, blockTokens)) * blockTokens
  }

  #place(number: number, play: Play, start: number, tokens: number, drafts: number): void {
    const { id } = play.request.spec
    const { blockTokens } = this.#limits
    const shared = hashesOf(play, start, blockTokens)
    const blocks = Math.ceil((start + tokens + drafts) / blockTokens)
    assert(
      this.#pool.take(id, shared, shared.length, blocks),
      `batch ${number} needs KV that the engine does not have: ${this.#pool.free} blocks are free, request ${id} needs ${blocks}`,
    )
    this.#inPlace.set(id, start + tokens)
    this.#fill(play)
  }

  #fill(play: Play): void {
    const { id } = play.request.spec
    this.#pool.fill(id, hashesOf(play, this.#inPlace.get(id)!, this.#limits.blockTokens))
  }
}

/** Chain hashes of the full blocks of its first `tokens` tokens, as far as they have any. */
function hashesOf({ request }: Play, tokens: number, blockTokens: number): readonly number[] {
  return (request.blocks ?? request.spec.prefix).slice(0, Math.floor(tokens / blockTokens))
}
