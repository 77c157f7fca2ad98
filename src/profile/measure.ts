/** Runs a grid of batches on an engine and times them. Contexts are filled once and shared by prefix copies;
 * each round goes through them in order, the points of a context in random order against drift. */
import type { Batch, BatchItem, RequestId } from "../core/protocol.ts"
import { type Engine, GREEDY, type Sampling, type StepOutput, type StepRow } from "../engine/port.ts"
import { Random, shuffle } from "../random.ts"
import { type GridPoint, gridFor, type PointKind, partsFor, START_CONTEXT } from "./grid.ts"
import { isSettled } from "./repeats.ts"
import type { Waits } from "./waits.ts"

export interface ProfileSample {
  kind: PointKind
  /** Equal for repeats of one point of the grid. */
  point: string
  items: SampleItem[]
  /** What the step took, less `waitedUs`. */
  us: number
  /** Time that the engine's threads waited for a core meanwhile: something else had it. */
  waitedUs: number
}

export type SampleItem = Pick<BatchItem, "position" | "tokens" | "sample" | "draft">

export interface MeasureOptions {
  quick: boolean
  seed?: number
  /** Most tokens that a decode will draft; 0 (the default) where the engine does not speculate. */
  maxDraft?: number
  /** Tells what the engine's threads wait for a core; left out where its time is not this machine's. */
  waits?: Waits
  onProgress?: ((message: string) => void) | undefined
}

const KINDS: PointKind[] = ["decode", "prefill", "mixed", "short", "speculation"]
/** Two of each kind. */
const FEWEST_POINTS = 8
/** Points whose repeats disagree are repeated: so often at most, within this share of the budget on top of it. */
const MOST_REPEATS = 6
const SETTLING_SHARE = 0.5

interface Actors {
  /** Where they are: steps there sample, steps at shorter contexts do not. */
  context: number
  /** Requests that decode, and how many tokens each knows. */
  decoders: Map<RequestId, number>
  prefills: RequestId[]
}

/** Decodes go on at the end of a context: speculation must leave the others room there. */
const SPARE_TOKENS = 64
/** Ids that no driver gives. */
const FIRST_ID = 1e9
/** One token again and again: a lookup drafts it (random text would give it no idea, and drafts no measured cost), and
 * all of it is accepted, so that the most rows are sampled. */
const FORCED: Sampling["logitBias"] = [[20, 1000]]
const SAMPLING = { ...GREEDY, ignoreEos: true, logitBias: FORCED }

export async function measure(engine: Engine, options: MeasureOptions): Promise<ProfileSample[]> {
  const run = new Measurement(engine, options)
  try {
    return await run.all()
  } finally {
    await run.releaseAll()
  }
}

class Measurement {
  readonly samples: ProfileSample[] = []
  readonly #engine: Engine
  readonly #options: MeasureOptions
  readonly #random: Random
  readonly #prompt: Int32Array
  readonly #open = new Set<RequestId>()
  #nextId = FIRST_ID
  #batches = 0
  #spentUs = 0
  /** Of it, on repeats. */
  #settlingUs = 0

  constructor(engine: Engine, options: MeasureOptions) {
    this.#engine = engine
    this.#options = options
    this.#random = new Random(options.seed ?? 1)
    const tokens = Math.min(250, engine.model.vocabSize - 10)
    this.#prompt = Int32Array.from(
      { length: engine.limits.contextTokens },
      () => 5 + this.#random.below(tokens),
    )
  }

  async all(): Promise<ProfileSample[]> {
    const { limits } = this.#engine
    const grid = gridFor(limits, await this.#speed(), this.#options.quick, this.#options.maxDraft)
    const longest = grid.contexts.at(-1)!
    const source = partsFor(limits).source ? this.#openRequest(limits.contextTokens) : null
    if (source !== null) await this.#fill(source, longest)
    const scenes = grid.rounds * grid.contexts.length
    for (let round = 0; round < grid.rounds; round++) {
      let actors = await this.#cast(source, longest)
      for (const [i, context] of grid.contexts.toReversed().entries()) {
        if (context === START_CONTEXT) {
          await this.#leave(actors)
          actors = await this.#cast(null, context)
        }
        const scene = round * grid.contexts.length + i
        await this.#scene(grid.points, actors, context, {
          untilUs: this.#settlingUs + (grid.budgetUs * (scene + 1)) / scenes,
          settleUs: (SETTLING_SHARE * grid.budgetUs) / scenes,
          told: (share) =>
            this.#report(`measuring step times: ${Math.floor((100 * (scene + share)) / scenes)}%`),
        })
      }
      await this.#leave(actors)
    }
    return this.samples
  }

  async releaseAll(): Promise<void> {
    if (this.#open.size > 0) await this.#execute([], [...this.#open])
    this.#open.clear()
  }

  /** Tokens per second of a short prefill, after warming up. */
  async #speed(): Promise<number> {
    const { maxBatchTokens, contextTokens } = this.#engine.limits
    const tokens = Math.min(64, maxBatchTokens, contextTokens - 1)
    const probe = this.#openRequest(contextTokens)
    let us = 1
    for (let i = 0; i < 3; i++) us = await this.#execute([item(probe, 0, tokens, false)])
    await this.#close([probe])
    return (tokens * 1e6) / Math.max(1, us)
  }

  /** Requests that hold a context: the source's, copied once, since copies can be slow; or their own. At
   * shorter contexts they are cut back, so those steps sample nothing. */
  async #cast(source: RequestId | null, context: number): Promise<Actors> {
    const { limits } = this.#engine
    const parts = partsFor(limits)
    const decoders = Array.from({ length: parts.decodes }, () => this.#openRequest(context + 1))
    const prefills = Array.from({ length: parts.prefills }, () => this.#openRequest(limits.contextTokens))
    for (const id of [...decoders, ...prefills]) {
      if (source === null) await this.#fill(id, context, context > START_CONTEXT)
      const copy = source === null ? {} : { copy: { from: source, tokens: context } }
      await this.#execute([{ ...item(id, context, 1, decoders.includes(id)), ...copy }])
    }
    return { context, decoders: new Map(decoders.map((id) => [id, context + 2])), prefills }
  }

  async #leave(actors: Actors): Promise<void> {
    await this.#close([...actors.decoders.keys(), ...actors.prefills])
  }

  async #fill(id: RequestId, context: number, timed = true): Promise<void> {
    if (timed) this.#report("filling a context")
    const chunk = Math.min(this.#engine.limits.maxBatchTokens, 64, context)
    for (let at = 0; at < context; at += chunk) {
      const tokens = Math.min(chunk, context - at)
      const items = [item(id, at, tokens, false)]
      if (timed) await this.#timed("prefill", `fill ${at}+${tokens}`, items)
      else await this.#execute(items)
    }
  }

  /** Measures points at one context until the time of this scene is up; some of each kind in any case. Tells the
   * share done before each: time passed with enough points, or all points. Then repeats those that disagree. */
  async #scene(
    points: readonly GridPoint[],
    actors: Actors,
    context: number,
    { untilUs, settleUs, told }: { untilUs: number; settleUs: number; told: (share: number) => void },
  ): Promise<void> {
    const fromUs = this.#spentUs
    const order = this.#order(points)
    const times = new Map<GridPoint, number[]>()
    for (const [done, point] of order.entries()) {
      if (this.#spentUs > untilUs && done >= FEWEST_POINTS) break
      const timeShare = this.#spentUs < untilUs ? (this.#spentUs - fromUs) / (untilUs - fromUs) : 1
      told(Math.max(Math.min(timeShare, done / FEWEST_POINTS), done / order.length))
      times.set(point, [...(times.get(point) ?? []), await this.#point(point, actors, context)])
    }
    const beganUs = this.#spentUs
    await this.#settle(times, actors, context, beganUs + settleUs)
    this.#settlingUs += this.#spentUs - beganUs
  }

  /** In rounds over all that disagree, so that one bad moment does not meet a point in all its repeats. */
  async #settle(
    times: Map<GridPoint, number[]>,
    actors: Actors,
    context: number,
    untilUs: number,
  ): Promise<void> {
    for (let repeat = 2; repeat < MOST_REPEATS; repeat++) {
      for (const [point, seen] of times) {
        if (isSettled(seen)) continue
        if (this.#spentUs > untilUs) return
        seen.push(await this.#point(point, actors, context))
      }
    }
  }

  /** One step of a point: its time in µs. */
  async #point(point: GridPoint, actors: Actors, context: number): Promise<number> {
    const items = [...this.#decodes(point, actors, context)]
    for (const [i, tokens] of point.chunks.entries())
      items.push(item(actors.prefills[i]!, context, tokens, false))
    const { rows, us } = await this.#timed(point.kind, pointName(point, context), items)
    for (const { id, tokens } of rows)
      if (actors.decoders.has(id)) actors.decoders.set(id, actors.decoders.get(id)! + tokens.length)
    return us
  }

  /** Where requests are at their end they sample and draft; cut back, they compute as many tokens. */
  *#decodes({ decodes, draft }: GridPoint, actors: Actors, context: number): Iterable<BatchItem> {
    for (const [id, known] of [...actors.decoders].slice(0, decodes)) {
      const room = this.#engine.limits.contextTokens - known - SPARE_TOKENS
      if (context !== actors.context) yield item(id, context, 1 + draft, false)
      else yield { ...item(id, known - 1, 1, true), draft: Math.max(0, Math.min(draft, room)) }
    }
  }

  /** Every point twice, in random order; but the kinds take turns, so that a scene cut short saw them all. */
  #order(points: readonly GridPoint[]): GridPoint[] {
    const order: GridPoint[] = []
    for (let repeat = 0; repeat < 2; repeat++) {
      const queues = KINDS.map((kind) =>
        shuffle(
          points.filter((point) => point.kind === kind),
          this.#random,
        ),
      )
      while (queues.some((queue) => queue.length > 0)) {
        for (const queue of queues) order.push(...queue.splice(0, 1))
      }
    }
    return order
  }

  /** What was drafted counts, not what was asked for. */
  async #timed(kind: PointKind, point: string, items: BatchItem[]): Promise<{ rows: StepRow[]; us: number }> {
    const waits = this.#options.waits?.begin()
    const { rows, durationUs } = await this.#run(items)
    const us = waits?.ownUs(durationUs) ?? durationUs
    const drafted = new Map(rows.map((row) => [row.id, row.drafted]))
    const shapes = items.map(({ id, position, tokens, sample }) => {
      return { position, tokens, sample, draft: drafted.get(id) ?? 0 }
    })
    const drafts = kind === "speculation" ? `: ${shapes.map(({ draft }) => draft).join()}` : ""
    const waitedUs = durationUs - us
    this.samples.push({ kind, point: point + drafts, items: shapes, us, waitedUs })
    return { rows, us }
  }

  #openRequest(promptTokens: number): RequestId {
    const id = this.#nextId++
    this.#engine.open(id, this.#prompt.subarray(0, promptTokens), SAMPLING)
    this.#open.add(id)
    return id
  }

  async #close(ids: RequestId[]): Promise<void> {
    await this.#execute([], ids)
    for (const id of ids) this.#open.delete(id)
  }

  async #execute(items: BatchItem[], release: RequestId[] = []): Promise<number> {
    return (await this.#run(items, release)).durationUs
  }

  async #run(items: BatchItem[], release: RequestId[] = []): Promise<Extract<StepOutput, { ok: true }>> {
    const batch: Batch = { number: ++this.#batches, items, evict: [], release, predictedUs: 0 }
    const output = await this.#engine.execute(batch)
    if (!output.ok) throw new Error(`the engine failed while it was measured: ${output.message}`)
    this.#spentUs += output.durationUs
    return output
  }

  #report(message: string): void {
    this.#options.onProgress?.(message)
  }
}

function pointName({ decodes, draft, chunks }: GridPoint, context: number): string {
  return `${context}: ${decodes}${draft > 0 ? `×${1 + draft}` : ""} + ${chunks.join("+")}`
}

function item(id: RequestId, position: number, tokens: number, sample: boolean): BatchItem {
  return { id, position, tokens, sample, draft: 0 }
}
