/** The steps that a fit is made of: the latest of each kind of shape, so that thousands of decodes do not push out what is known
 * of prompts, and those that took far longer than their like are left out. */
import { quantile } from "simple-statistics"
import { attentionPairs, type CostModel, type StepShape, stepUs } from "../core/cost.ts"
import { withinSpread } from "./least-squares.ts"

export interface SeenStep {
  shape: StepShape
  us: number
}

/** Steps kept of each kind of shape, as a rule, and kinds kept. */
const KEPT = 8
const MOST_CELLS = 48
/** From so many on they say which of them is an outlier. */
const FEW = 3
/** Steps of one kind differ by as much, ln: they are alike, not the same. */
export const ALIKE = 0.15

interface Cell {
  steps: SeenStep[]
  next: number
  usedAt: number
}

export class SeenSteps {
  #cells = new Map<string, Cell>()
  #seen = 0
  readonly #kept: number

  /** `kept`: steps of each kind of shape. */
  constructor(kept = KEPT) {
    this.#kept = Math.max(1, kept)
  }

  get seen(): number {
    return this.#seen
  }

  /** Answers the steps of its kind where it is the one that makes them enough to stand for themselves, else none. */
  add(step: SeenStep): readonly SeenStep[] {
    const key = kindOf(step.shape)
    const cell = this.#cells.get(key) ?? { steps: [], next: 0, usedAt: 0 }
    this.#cells.set(key, cell)
    cell.steps[cell.next] = step
    cell.next = (cell.next + 1) % this.#kept
    cell.usedAt = ++this.#seen
    if (this.#cells.size > MOST_CELLS) this.#forgetOldest()
    return cell.steps.length === FEW && cell.next === FEW % this.#kept ? cell.steps : []
  }

  all(): SeenStep[] {
    return [...this.#cells.values()].flatMap(({ steps }) => steps)
  }

  /** Steps of such a kind were seen often enough to stand for themselves. */
  knows(shape: StepShape): boolean {
    return (this.#cells.get(kindOf(shape))?.steps.length ?? 0) >= FEW
  }

  /** Without outliers: off their like by far more than others are off theirs. A kind that was seen once or twice is believed:
   * that a model does not fit it is the model's fault. `predicted`: what evens out differences within a kind, µs. */
  usual(predicted: (shape: StepShape) => number): SeenStep[] {
    const steps: SeenStep[] = []
    const judged: SeenStep[] = []
    const deviations: number[] = []
    for (const cell of this.#cells.values()) {
      if (cell.steps.length < FEW) {
        steps.push(...cell.steps)
        continue
      }
      const offsets = cell.steps.map(({ shape, us }) => Math.log(us / Math.max(1, predicted(shape))))
      const center = quantile(offsets, 0.5)
      judged.push(...cell.steps)
      deviations.push(...offsets.map((offset) => offset - center))
    }
    const near = withinSpread(deviations, ALIKE)
    return steps.concat(judged.filter((_, i) => near[i]))
  }

  #forgetOldest(): void {
    let oldest: [string, number] = ["", Infinity]
    for (const [key, { usedAt }] of this.#cells) if (usedAt < oldest[1]) oldest = [key, usedAt]
    this.#cells.delete(oldest[0])
  }
}

/** Shapes of one kind are within a factor of two in tokens and of four in context. */
function kindOf({ tokens, sequences, fastPairs, slowPairs, specSteps }: StepShape): string {
  const context = (fastPairs + slowPairs) / Math.max(1, tokens)
  const scale = (count: number, base: number) => Math.round(Math.log(1 + count) / Math.log(base))
  return `${tokens > sequences ? "m" : "d"}${scale(tokens, 2)}.${scale(context, 4)}.${scale(specSteps, 2)}`
}

const DECODES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
const CONTEXTS = [64, 1024, 8192]
const CHUNKS = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
const BESIDE = [0, 8, 64]
const USUAL_CONTEXT = 512
const DRAFTS = [1, 3]

/** What is known of an engine, as steps that it would have taken: they count until their like were seen. */
export function recalledSteps(known: CostModel): SeenStep[] {
  const shapes: StepShape[] = []
  const drafts = known.pieces.some(({ specSteps = 0 }) => specSteps > 0) ? [0, ...DRAFTS] : [0]
  for (const count of DECODES)
    for (const context of CONTEXTS) for (const draft of drafts) shapes.push(stepOf(count, context, 0, draft))
  for (const chunk of CHUNKS) for (const count of BESIDE) shapes.push(stepOf(count, USUAL_CONTEXT, chunk, 0))
  return shapes.map((shape) => ({ shape, us: stepUs(known, shape) }))
}

/** `count` decodes of `context` tokens, with as many drafts each, and a prompt of `chunk` tokens. */
function stepOf(count: number, context: number, chunk: number, draft: number): StepShape {
  const prompts = chunk > 0 ? 1 : 0
  return {
    tokens: count * (1 + draft) + chunk,
    sequences: count + prompts,
    passes: 1,
    fastPairs: attentionPairs(0, chunk),
    slowPairs: count * attentionPairs(context, 1 + draft),
    outputs: count * (1 + draft) + prompts,
    specSteps: draft,
  }
}
