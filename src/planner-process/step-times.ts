/** What an engine's steps take: a guess by its device, or what is known of the last engine like it; learnt from the steps that
 * land, and kept for the next one. */
import { type CostModel, type StepShape, shapeOf } from "../core/cost.ts"
import type { BatchItem, RequestId } from "../core/protocol.ts"
import { LAYOUT } from "../fit/guess.ts"
import { StepFit } from "../fit/step-fit.ts"
import { forget, remember, startOf } from "../profile/engine-cost.ts"
import type { EngineMessage } from "../wire/planner/messages.ts"

export type StepItems = readonly Pick<BatchItem, "id" | "position" | "tokens" | "draft">[]

export interface StepTimesOptions {
  /** Where models are kept; null: nowhere. */
  cacheDir: string | null
  log: (message: string, level: "info" | "warn") => void
}

interface Landed {
  items: StepItems
  /** Tokens that were really drafted, where that is told. */
  drafted: ReadonlyMap<RequestId, number> | null
  us: number
}

/** Seen so many steps, a model is kept; again whenever it has seen twice as many. */
const KEEP_FROM = 200

export class StepTimes {
  readonly #engine: EngineMessage
  readonly #options: StepTimesOptions
  readonly #fit: StepFit
  #landed: Landed[] = []
  #keepAt = KEEP_FROM
  #toldStale = false

  constructor(engine: EngineMessage, options: StepTimesOptions) {
    this.#engine = engine
    this.#options = options
    this.#fit = new StepFit(startOf(engine, options.cacheDir))
  }

  /** As believed now. */
  get cost(): CostModel {
    return this.#fit.model
  }

  /** A step of these items took `us` µs. Costs nothing until `learn`. */
  landed(items: StepItems, drafted: ReadonlyMap<RequestId, number> | null, us: number): void {
    this.#landed.push({ items, drafted, us })
  }

  /** Learn from what has landed: the new model, if that made one. It may take milliseconds: not while an engine waits. */
  learn(): CostModel | null {
    let model: CostModel | null = null
    for (const landed of this.#landed.splice(0))
      model = this.#fit.observeShape(shapeAsRan(landed), landed.us) ?? model
    if (this.#fit.stale && !this.#toldStale) this.#drop()
    if (model !== null && this.#fit.confident && this.#fit.seen >= this.#keepAt) this.keep()
    return model
  }

  /** Keep the model for the next engine like this one. */
  keep(): void {
    const { cacheDir, log } = this.#options
    if (cacheDir === null || !this.#fit.confident || this.#fit.seen < KEEP_FROM) return
    this.#keepAt = 2 * this.#fit.seen
    remember(this.#engine, this.#fit.model, cacheDir).catch((error: NodeJS.ErrnoException) =>
      log(
        `the step times of engine ${this.#engine.name} could not be kept in ${cacheDir} (${error.code ?? error.message})`,
        "warn",
      ),
    )
  }

  #drop(): void {
    this.#toldStale = true
    const { cacheDir, log } = this.#options
    log(
      `engine ${this.#engine.name}: the step times known of ${this.#engine.model} on ${this.#engine.device} do not fit it; they are learnt anew`,
      "info",
    )
    if (cacheDir !== null) forget(this.#engine, cacheDir).catch(() => {})
  }
}

function shapeAsRan({ items, drafted }: Landed): StepShape {
  return shapeOf(
    items.map(({ id, position, tokens, draft }) => ({
      ...{ position, tokens, draft: Math.min(draft, drafted?.get(id) ?? draft) },
      // Rows sampled are no part of these fits.
      sample: true,
    })),
    LAYOUT,
  )
}
