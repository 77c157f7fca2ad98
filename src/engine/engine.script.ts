/** Drives an engine in tests as a scheduler would, keeping the same books. */
import { expect } from "vitest"
import type { Batch, BatchItem, RequestId } from "../core/protocol.ts"
import { Random } from "../random.ts"
import { type Engine, GREEDY, type Sampling, type StepRow } from "./port.ts"

export class Script {
  readonly #engine: Engine
  readonly #requests = new Map<
    RequestId,
    { prompt: Int32Array; output: number[]; held: number; ended: boolean }
  >()
  #nextId = 100
  #batches = 0

  constructor(engine: Engine) {
    this.#engine = engine
  }

  /** `output`: produced on another engine. */
  open(
    prompt: Int32Array,
    sampling: Partial<Sampling> = { ignoreEos: true },
    output: readonly number[] = [],
  ): RequestId {
    const id = this.#nextId++
    this.#engine.open(id, prompt, { ...GREEDY, ...sampling }, Int32Array.from(output))
    this.#requests.set(id, { prompt, output: [...output], held: 0, ended: false })
    return id
  }

  held(id: RequestId): number {
    return this.#requests.get(id)!.held
  }

  output(id: RequestId): number[] {
    return this.#requests.get(id)!.output
  }

  ended(id: RequestId): boolean {
    return this.#requests.get(id)!.ended
  }

  /** All known tokens that are still to be computed. */
  all(id: RequestId): BatchItem {
    return this.next(id, Number.POSITIVE_INFINITY)
  }

  next(id: RequestId, most: number, position = this.held(id)): BatchItem {
    const { prompt, output } = this.#requests.get(id)!
    const known = prompt.length + output.length
    const tokens = Math.min(most, known - position)
    return { id, position, tokens, sample: position + tokens === known, draft: 0 }
  }

  /** As `next`; a step that samples drafts up to `draft` tokens, within the context. */
  speculating(id: RequestId, most: number, draft: number): BatchItem {
    const item = this.next(id, most)
    const room = this.#engine.limits.contextTokens - item.position - item.tokens
    return { ...item, draft: item.sample ? Math.min(draft, room) : 0 }
  }

  copied(id: RequestId, from: RequestId, tokens: number, most = Number.POSITIVE_INFINITY): BatchItem {
    return { ...this.next(id, most, tokens), copy: { from, tokens } }
  }

  /** Whole blocks of 16 that `from` holds and that begin the prompt of `to`, leaving a token to compute. */
  commonPrefix(from: RequestId, to: RequestId): number {
    const source = this.#requests.get(from)!
    const { prompt } = this.#requests.get(to)!
    let n = 0
    while (n < source.held && n < prompt.length - 1 && source.prompt[n] === prompt[n]) n++
    return n - (n % 16)
  }

  batch(items: BatchItem[], drop: Partial<Pick<Batch, "evict" | "release" | "trim">> = {}): Batch {
    return { number: ++this.#batches, items, evict: [], release: [], predictedUs: 0, ...drop }
  }

  async step(
    items: BatchItem[],
    drop: Partial<Pick<Batch, "evict" | "release" | "trim">> = {},
  ): Promise<StepRow[]> {
    const output = await this.#engine.execute(this.batch(items, drop))
    if (!output.ok) throw new Error(output.message)
    expect(output.durationUs).toBeGreaterThanOrEqual(0)
    for (const id of drop.evict ?? []) this.#requests.get(id)!.held = 0
    for (const { id, tokens } of drop.trim ?? []) {
      const request = this.#requests.get(id)!
      request.held = Math.min(request.held, tokens)
    }
    for (const { id, position, tokens } of items) this.#requests.get(id)!.held = position + tokens
    const rows = output.rows.toSorted((a, b) => a.id - b.id)
    const sampled = items.filter((item) => item.sample).map((item) => item.id)
    expect(rows.map((row) => row.id)).toEqual(sampled.toSorted((a, b) => a - b))
    for (const row of rows) {
      const request = this.#requests.get(row.id)!
      request.output.push(...row.tokens)
      request.held += row.tokens.length - 1
      request.ended = row.end
    }
    return rows
  }

  async drop(...ids: RequestId[]): Promise<void> {
    await this.step([], { release: ids })
  }
}

/** Bytes that look like nothing in particular; valid in every vocabulary of at least 256 tokens. */
export function promptOf(seed: number, length: number): Int32Array {
  const random = new Random(seed)
  return Int32Array.from({ length }, () => 10 + random.below(200))
}

export function join(a: Int32Array, b: Int32Array): Int32Array {
  return Int32Array.from([...a, ...b])
}
