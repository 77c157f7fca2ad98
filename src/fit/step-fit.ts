/** A cost model learnt while serving, from single steps and how long they took. Pure: no clock. It is a slow guess at first (or
 * what was known of this engine), and made anew at growing intervals, so that it costs a step next to nothing. That the
 * machine is slower or faster for a while is not its business but the calibration's (core/learn/calibration.ts). */
import { quantile } from "simple-statistics"
import { type CostModel, type StepShape, shapeOf, stepUs } from "../core/cost.ts"
import type { BatchItem } from "../core/protocol.ts"
import {
  beliefsOf,
  type CapturedGraphs,
  type Coefficients,
  FIRST_SIGMA,
  GPU_GUESS,
  guessedModel,
  LAYOUT,
  modelOf,
  scaledGuess,
} from "./guess.ts"
import { sigmaOf } from "./least-squares.ts"
import { fitPieces } from "./pieces.ts"
import { ALIKE, recalledSteps, type SeenStep, SeenSteps } from "./seen-steps.ts"

export interface StepFitOptions {
  /** What is believed of an engine that nothing is known of. Default: one GPU. */
  guess?: Coefficients
  /** The engine's CUDA graphs; left out where it has none. */
  graphs?: CapturedGraphs
  /** What was learnt of this very engine before. */
  known?: CostModel
}

/** Steps until the first fit, growth of the intervals, and the longest. */
const FIRST = 1
const GROWTH = 1.5
const LONGEST = 512
/** Seen so many steps, and of them with prompts, the model is believed. */
const ENOUGH = 24
const ENOUGH_PROMPTS = 4
/** That the guess is of an engine just as fast counts as so many steps. */
const PACE_STEPS = 0.5
/** Steps that the first sigma counts as. */
const SIGMA_STEPS = 8
const LEAST_SIGMA = 0.02
/** What was known is another engine's, or of other days, when steps of a kind are so much off it in the median. */
const STALE = Math.log(1.5)
const STALE_STEPS = 12

export class StepFit {
  readonly #guess: Coefficients
  readonly #graphs: CapturedGraphs | undefined
  #known: CostModel | null
  /** What it says of shapes that were not seen. */
  #recalled: readonly SeenStep[]
  #stale = false
  #steps = new SeenSteps()
  #withPrompts = 0
  #fitAt = FIRST
  #model: CostModel

  constructor({ guess = GPU_GUESS, graphs, known }: StepFitOptions = {}) {
    this.#guess = guess
    this.#graphs = graphs
    this.#known = known ?? null
    this.#recalled = known === undefined ? [] : recalledSteps(known)
    this.#model = known ?? guessedModel(guess, graphs)
  }

  /** The same object until the next fit. */
  get model(): CostModel {
    return this.#model
  }
  /** Enough was seen, of prompts as well. */
  get confident(): boolean {
    return this.#steps.seen >= ENOUGH && this.#withPrompts >= ENOUGH_PROMPTS
  }
  /** What was known turned out not to fit this engine: it should be forgotten. */
  get stale(): boolean {
    return this.#stale
  }
  get seen(): number {
    return this.#steps.seen
  }

  /** A batch of these items took `us` µs. Answers the new model where one was fitted. */
  observe(
    items: readonly Pick<BatchItem, "position" | "tokens" | "sample" | "draft">[],
    us: number,
  ): CostModel | null {
    return this.observeShape(shapeOf(items, LAYOUT), us)
  }

  /** `shape`: by LAYOUT. */
  observeShape(shape: StepShape, us: number): CostModel | null {
    if (!(us > 0) || !(shape.tokens > 0) || !Number.isFinite(us)) return null
    const kind = this.#steps.add({ shape, us })
    if (shape.tokens > shape.sequences) this.#withPrompts++
    if (this.#steps.seen >= this.#fitAt)
      this.#fitAt = this.#steps.seen + Math.min(LONGEST, Math.ceil((GROWTH - 1) * this.#steps.seen))
    else if (!this.#isSurprising(kind)) return null
    this.#fit()
    return this.#model
  }

  /** Steps of a kind that the model does not know, and that it is wrong about: it should not go on so until the next fit. */
  #isSurprising(kind: readonly SeenStep[]): boolean {
    if (kind.length === 0) return false
    const offsets = kind.map(({ shape, us }) => Math.log(us / Math.max(1, stepUs(this.#model, shape))))
    return Math.abs(quantile(offsets, 0.5)) > ALIKE
  }

  #fit(): void {
    if (this.#known !== null && this.#isStale(this.#known)) this.#forget()
    const seen = this.#steps.usual((shape) => stepUs(this.#model, shape))
    const recalled = this.#recalled.filter(({ shape }) => !this.#steps.knows(shape))
    const steps = [...seen, ...recalled]
    const guess = this.#paced(steps)
    const { pieces, launches } = fitPieces(steps, beliefsOf(guess), guess.tokens, this.#graphs)
    const model = modelOf(pieces, launches, 0, this.#graphs)
    const deviations = seen.map(({ shape, us }) => Math.log(us / stepUs(model, shape)))
    this.#model = { ...model, residualSigma: this.#sigma(sigmaOf(deviations)) }
  }

  /** The guess of an engine as fast as this one: what is far off is most often the whole of it, and one step tells. */
  #paced(steps: readonly SeenStep[]): Coefficients {
    const guessed = guessedModel(this.#guess, this.#graphs)
    const offsets = steps.map(({ shape, us }) => Math.log(us / stepUs(guessed, shape)))
    const heard = steps.length / (steps.length + PACE_STEPS)
    return scaledGuess(this.#guess, Math.exp(heard * quantile(offsets, 0.5)))
  }

  #forget(): void {
    this.#known = null
    this.#recalled = []
    this.#stale = true
    this.#model = guessedModel(this.#guess, this.#graphs)
  }

  /** Nearer to the first one while little was seen. */
  #sigma(seen: number): number {
    const weight = SIGMA_STEPS / (SIGMA_STEPS + this.#steps.seen)
    const first = this.#known?.residualSigma ?? FIRST_SIGMA
    return Math.max(LEAST_SIGMA, Math.min(FIRST_SIGMA, weight * first + (1 - weight) * seen))
  }

  #isStale(known: CostModel): boolean {
    const steps = this.#steps.all()
    const kinds = [
      steps.filter(({ shape }) => shape.tokens > shape.sequences),
      steps.filter(({ shape }) => shape.tokens === shape.sequences),
    ]
    return kinds.some((kind) => {
      if (kind.length < STALE_STEPS) return false
      const offsets = kind.map(({ shape, us }) => Math.log(us / Math.max(1, stepUs(known, shape))))
      return Math.abs(quantile(offsets, 0.5)) > STALE
    })
  }
}
