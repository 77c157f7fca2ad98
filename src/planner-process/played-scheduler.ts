/** What a played engine (testing.ts) computes in a step: its requests, their KV by its own account, and whose tokens are next, by
 * the plan or by itself. It complains of plans that do not fit what it has. */
import { columnOf } from "../wire/planner/columns.ts"
import type { EngineMessage, PlanMessage } from "../wire/planner/messages.ts"

/** How an engine goes its own ways, as vLLM does under pressure: chances, each step or item. */
export interface OwnWays {
  /** 0 to 1, the same each time. */
  random: () => number
  /** The plan comes too late, and the engine schedules by itself. */
  ignores: number
  /** A planned item is left out, or is shorter. */
  leavesOut: number
  shortens: number
  /** The engine takes a request's KV by itself. */
  drops: number
  /** A drafted token is accepted. */
  accepts: number
  /** What has arrived is told before the step, which another plan is asked for. */
  renews: number
}

const OBEDIENT: OwnWays = {
  ...{ random: () => 0.5, ignores: 0, leavesOut: 0, shortens: 0, drops: 0, accepts: 0.7, renews: 0 },
}

export interface PlayedRequest {
  id: number
  promptTokens: number
  maxOutputTokens: number
  slo: Record<string, unknown>
  /** As vLLM calls it. */
  name?: string
  /** When it came, on the engine's clock. */
  atUs: number
  /** Tokens after which it stops by itself. */
  stopsAfter: number
  /** KV in place, and tokens out: as scheduled, and as landed. */
  computed: number
  output: number
  /** Times of its tokens. */
  tokensUs: number[]
  scheduledOutput: number
}

export interface FlyingItem {
  request: PlayedRequest
  position: number
  tokens: number
  sample: boolean
  draft: number
}

export class PlayedScheduler {
  /** Live, in order of arrival. */
  readonly requests = new Map<number, PlayedRequest>()
  readonly ended: PlayedRequest[] = []
  /** Plans that were not as its own account has it. */
  readonly misfits: string[] = []
  /** Planned items for which it had no KV. */
  squeezed = 0
  /** Whose KV it has taken by itself since that was told. */
  lost: number[] = []
  readonly #engine: EngineMessage
  readonly #ways: OwnWays

  constructor(engine: EngineMessage, ways: Partial<OwnWays>) {
    this.#engine = engine
    this.#ways = { ...OBEDIENT, ...ways }
  }

  get ignoresPlan(): boolean {
    return this.#chance("ignores")
  }
  get renewsPlan(): boolean {
    return this.#chance("renews")
  }

  /** No request holds so many tokens of KV. */
  get freeTokens(): number {
    const { kvTokens, blockTokens } = this.#engine.limits
    return Math.max(0, Math.floor(kvTokens / blockTokens) * blockTokens - this.#kvUsed)
  }

  /** By the plan, as far as it goes by it. */
  obey(plan: PlanMessage): FlyingItem[] {
    const { ids, tokens, drafts, evict = columnOf([]) } = plan
    for (const id of evict) {
      const request = this.requests.get(id)
      if (request !== undefined) request.computed = 0
    }
    const items: FlyingItem[] = []
    let free = this.#engine.limits.kvTokens - this.#kvUsed
    for (let i = 0; i < ids.length; i++) {
      const request = this.requests.get(ids[i]!)
      // It has ended, or its KV went, since the plan was made.
      if (request === undefined || this.lost.includes(request.id)) continue
      if (this.#chance("leavesOut")) continue
      const held = this.#blocksOf(request.computed)
      const position = this.#startOf(request, plan.positions[i]!)
      const known = request.promptTokens + request.scheduledOutput
      const count = Math.min(tokens[i]!, known - position)
      const cut = count > 1 && this.#chance("shortens") ? Math.ceil(count / 2) : count
      const draft = cut === tokens[i] ? (drafts?.[i] ?? 0) : 0
      const needed = this.#blocksOf(position + cut + draft) - held
      if (needed > free) {
        this.squeezed++
        continue
      }
      free -= needed
      items.push({ request, position, tokens: cut, sample: position + cut === known, draft })
    }
    return items
  }

  /** From where a planned request is computed. */
  #startOf(request: PlayedRequest, planned: number): number {
    if (planned === 0) request.computed = 0
    const { id, computed } = request
    // Drafts may have been refused since the plan was made: then it is less.
    const refused = computed < planned && this.#engine.maxDrafts > 0
    if (computed !== planned && !refused)
      this.misfits.push(`request ${id}: position ${planned}, where ${computed} tokens are computed`)
    return computed
  }

  #chance(way: Exclude<keyof OwnWays, "random">): boolean {
    return this.#ways[way] > 0 && this.#ways.random() < this.#ways[way]
  }

  /** Now and then some request loses its KV. */
  dropAny(): void {
    if (!this.#chance("drops")) return
    const running = [...this.requests.values()].filter(({ computed }) => computed > 0)
    this.#dropOne(running[Math.floor(this.#ways.random() * running.length)])
  }

  #dropOne(victim: PlayedRequest | undefined): void {
    if (victim === undefined) return
    victim.computed = 0
    this.lost.push(victim.id)
  }

  /** In whole blocks. */
  get #kvUsed(): number {
    let used = 0
    for (const { computed } of this.requests.values()) used += this.#blocksOf(computed)
    return used
  }

  #blocksOf(tokens: number): number {
    const { blockTokens } = this.#engine.limits
    return Math.ceil(tokens / blockTokens) * blockTokens
  }

  /** vLLM's own order: those that run, then those that wait, as they came. Where none has room, and nothing
   * is `inAir`, the last one gives its KV up. */
  firstCome(inAir: boolean): FlyingItem[] {
    const { maxBatchTokens, maxSequences, kvTokens } = this.#engine.limits
    const items: FlyingItem[] = []
    let room = maxBatchTokens
    let free = kvTokens - this.#kvUsed
    const all = [...this.requests.values()]
    const running = all.filter(({ computed }) => computed > 0)
    for (const request of [...running, ...all.filter(({ computed }) => computed === 0)]) {
      const { computed: position, promptTokens, scheduledOutput, maxOutputTokens } = request
      const known = promptTokens + scheduledOutput
      const held = this.#blocksOf(position)
      const tokens = Math.min(room, known - position, held - position + free)
      const starts = position === 0 && running.length + items.length >= maxSequences
      if (tokens < 1 || starts || scheduledOutput >= maxOutputTokens) continue
      items.push({ request, position, tokens, sample: position + tokens === known, draft: 0 })
      room -= tokens
      free -= this.#blocksOf(position + tokens) - held
    }
    if (items.length === 0 && !inAir) this.#dropOne(running.at(-1))
    return items
  }

  /** An item has landed: how many tokens come out. */
  yields({ request, sample, draft }: FlyingItem, nowUs: number): number {
    if (!sample) return 0
    let accepted = 0
    while (accepted < draft && this.#chance("accepts")) accepted++
    const end = Math.min(request.stopsAfter, request.maxOutputTokens)
    const tokens = Math.min(1 + accepted, end - request.output)
    const refused = 1 + draft - tokens
    if (request.computed > 0) request.computed -= refused
    request.scheduledOutput -= refused
    request.output += tokens
    for (let i = 0; i < tokens; i++) request.tokensUs.push(nowUs)
    if (request.output >= end) {
      this.requests.delete(request.id)
      this.ended.push(request)
    }
    return tokens
  }
}

/** To the token, but for drafts that were refused since. */
export function isPlan(
  { ids, positions, tokens, drafts }: PlanMessage,
  items: readonly FlyingItem[],
): boolean {
  const same = ({ request, position, tokens: count, draft }: FlyingItem, i: number) =>
    request.id === ids[i] && position <= positions[i]! && count === tokens[i] && draft === (drafts?.[i] ?? 0)
  return ids.length === items.length && items.every(same)
}
