/** One replica under constant load, to time its decisions: what ran in a step yields tokens, ended requests are replaced,
 * and a queue is kept at its length. */
import type { PolicyOptions } from "../../src/core/options.ts"
import type { PolicyName } from "../../src/core/policy/index.ts"
import type { Batch, Effect, Event, RequestId, RequestSpec, StepResult } from "../../src/core/protocol.ts"
import { Replica } from "../../src/core/replica.ts"
import { Random } from "../../src/random.ts"
import { HARDWARE } from "../../src/sim/presets.ts"

export interface Size {
  running: number
  /** Prompts that arrive before every decision. */
  fresh: number
  /** Requests that wait all the time. */
  waiting: number
  /** Every request has a TPOT of its own; else there are two. */
  distinctTpots: boolean
  /** Tokens that all prompts begin with; 0: twenty kinds of prompts share their first 128. */
  prefixTokens: number
  /** So many send in turn. */
  tenants: number
}

export interface Decision {
  ms: number
  items: number
}

const BLOCK_TOKENS = 16
const FAMILIES = 20
const FAMILY_BLOCKS = 8
/** Block hashes of one request's own text. */
const MOST_BLOCKS = 1000
const MOST_OUTPUT_TOKENS = 1000
/** Of the queue: so late is a first token due at most, µs. */
const QUEUE_TTFT_US = 120e6
const NO_SLO = {
  ttftUs: Infinity,
  ttftSlowdown: 0,
  tpotUs: Infinity,
  thinkingTpotUs: Infinity,
  maxGapUs: Infinity,
}

export class Load {
  readonly #replica: Replica
  readonly #random: Random
  readonly #size: Size
  #nowUs = 0
  #nextId = 1
  #timedMs = 0
  /** Tokens that each is still to yield. */
  #running = new Map<RequestId, number>()
  #fresh = new Set<RequestId>()
  /** When each of the queue gives up. */
  #queue = new Map<RequestId, number>()
  #queueOpen = false
  #batch: Batch | null = null

  constructor(size: Size, policy: PolicyName, options: Partial<PolicyOptions>, seed: number) {
    const { cost, draftCost } = HARDWARE["opt-6.7b-a100"]!
    const atOnce = size.running + size.fresh
    this.#size = size
    this.#random = new Random(seed)
    // A faster engine than the published one, so that so many decodes can be promised at all.
    const speed = 256 / (4 * atOnce)
    const chosen = options.speculation === "on" ? (draftCost ?? cost) : cost
    const pieces = chosen.pieces.map((piece) =>
      Object.fromEntries(Object.entries(piece).map(([feature, value]) => [feature, value * speed])),
    )
    this.#replica = new Replica({
      limits: {
        kvTokens: 1024 * 2 * atOnce,
        blockTokens: BLOCK_TOKENS,
        maxSequences: 2 * atOnce,
        maxBatchTokens: 16_384,
        contextTokens: 8192,
        minChunkTokens: 1,
        unifiedKv: true,
      },
      cost: { ...chosen, pieces },
      policy,
      apps: 3,
      options,
      maxQueue: 2 * (atOnce + size.waiting),
    })
  }

  /** Bring the load back to its size and make one decision. Answers how long the replica took for everything since the
   * step ended (its results, the arrivals, the decision), and the batch's items. Cancelling what is too much is the
   * harness's own and not in it. */
  decide(): Decision {
    const before = this.#batch
    this.#timedMs = 0
    if (before !== null) this.#land(before)
    for (const id of this.#fresh) this.#cancel(id)
    this.#fresh.clear()
    while (this.#running.size > this.#size.running) this.#cancel(this.#running.keys().next().value!)
    if (this.#queueOpen) this.#keepQueue()
    for (let i = 0; i < this.#size.fresh; i++) this.#arrive()
    const effects = this.#timed(() => this.#replica.poll(this.#nowUs))
    this.#batch = runOf(effects)
    return { ms: this.#timedMs, items: this.#batch?.items.length ?? 0 }
  }

  /** From now on requests wait. Not from the start: with a long queue it takes long until so many run. */
  openQueue(): void {
    this.#queueOpen = true
  }

  get full(): boolean {
    return this.#running.size >= this.#size.running * 0.95
  }

  #timed<T>(action: () => T): T {
    const startMs = performance.now()
    const result = action()
    this.#timedMs += performance.now() - startMs
    return result
  }

  #handle(event: Event): void {
    this.#timed(() => this.#replica.handle(event, this.#nowUs))
  }

  #land(batch: Batch): void {
    this.#nowUs += Math.max(1000, Math.round(batch.predictedUs))
    const results: StepResult[] = []
    for (const { id, sample, draft } of batch.items) {
      if (!sample) continue
      const tokens = 1 + this.#random.below(draft + 1)
      const left = (this.#running.get(id) ?? 1 + this.#random.below(400)) - tokens
      results.push({ id, tokens, stopped: left <= 0, answeringFrom: -1 })
      this.#fresh.delete(id)
      this.#queue.delete(id)
      if (left <= 0) this.#running.delete(id)
      else this.#running.set(id, left)
    }
    this.#handle({ type: "stepDone", batch: batch.number, durationUs: batch.predictedUs, results })
  }

  #cancel(id: RequestId): void {
    this.#running.delete(id)
    this.#replica.handle({ type: "cancelled", id }, this.#nowUs)
  }

  #arrive(): void {
    const request = this.#request()
    this.#fresh.add(request.id)
    this.#handle({ type: "arrived", request })
  }

  /** A third of the queue is best-effort, as what was turned down is; the others' first tokens are due at any time up to
   * two minutes, and they leave when it is past: else all would be best-effort in the end. */
  #keepQueue(): void {
    for (const [id, untilUs] of this.#queue) {
      if (untilUs > this.#nowUs) continue
      this.#queue.delete(id)
      this.#cancel(id)
    }
    while (this.#queue.size < this.#size.waiting) {
      const request = this.#request()
      const ttftUs = Math.round((0.01 + this.#random.uniform()) * QUEUE_TTFT_US)
      this.#queue.set(request.id, this.#nowUs + ttftUs)
      const queued: RequestSpec =
        request.id % 3 === 0
          ? { ...request, tier: "bestEffort", slo: NO_SLO }
          : { ...request, slo: { ...request.slo, ttftUs, ttftSlowdown: 0 } }
      this.#replica.handle({ type: "arrived", request: queued }, this.#nowUs)
    }
  }

  #request(): RequestSpec {
    const id = this.#nextId++
    const app = id % 3
    const { distinctTpots, prefixTokens, tenants } = this.#size
    const ownTokens = Math.min(4000, Math.round(200 * Math.exp(this.#random.normal())) + 1)
    const promptTokens = prefixTokens + ownTokens
    const family = this.#random.below(FAMILIES)
    const sharedBlocks = prefixTokens > 0 ? prefixTokens / BLOCK_TOKENS : FAMILY_BLOCKS
    const first = prefixTokens > 0 ? 0 : family * FAMILY_BLOCKS
    // A shared beginning, then its own text.
    const hashOf = (block: number) => (block < sharedBlocks ? first + block : id * MOST_BLOCKS + block)
    const usualTpotUs = app === 1 ? 50_000 : 100_000
    return {
      id,
      app,
      tenant: id % tenants,
      session: -1,
      promptTokens,
      maxOutputTokens: MOST_OUTPUT_TOKENS,
      prefix: Array.from({ length: Math.floor(promptTokens / BLOCK_TOKENS) }, (_, block) => hashOf(block)),
      slo: {
        ttftUs: 0,
        ttftSlowdown: 5,
        tpotUs: distinctTpots ? 50_000 + (id % 50_000) : usualTpotUs,
        thinkingTpotUs: 50_000,
        maxGapUs: Infinity,
      },
      tier: "slo",
      thinking: false,
    }
  }
}

function runOf(effects: readonly Effect[]): Batch | null {
  return effects.find((effect) => effect.type === "run")?.batch ?? null
}
