/** Step times of a running vLLM, from outside: plays a grid of rounds, fits, and says how good that is on steps that the fit was
 * not shown. */
import { quantileSorted } from "simple-statistics"
import { type CostModel, stepUs } from "../../core/cost.ts"
import { beliefsOf, type CapturedGraphs, type Coefficients, GPU_GUESS, modelOf } from "../../fit/guess.ts"
import { sigmaOf } from "../../fit/least-squares.ts"
import { fitPieces } from "../../fit/pieces.ts"
import { type SeenStep, SeenSteps } from "../../fit/seen-steps.ts"
import { stepsOf } from "./gaps.ts"
import { type GridOptions, type Player, roundsOf } from "./rounds.ts"

export interface VllmProfileOptions extends GridOptions {
  guess?: Coefficients
  /** What graphs it may have: the one that explains its steps best is taken; undefined among them: none. */
  graphs: readonly (CapturedGraphs | undefined)[]
  onProgress?: (done: number, rounds: number) => void
}

export interface VllmProfile {
  model: CostModel
  steps: SeenStep[]
  heldOut: Errors
  /** Why it deserves no trust; empty where it does. */
  faults: string[]
}

/** |actual / predicted − 1| in quantiles, and the middle of actual / predicted. */
export interface Errors {
  count: number
  p50: number
  p90: number
  p99: number
  middle: number
}

/** Each so many-th step is not shown to the fit that is judged. */
const HELD_OUT = 5
const LEAST_STEPS = 20
const MOST_P50 = 0.2
const MOST_P90 = 0.5
/** Times that the grid is played: steps that something disturbed stand out beside their like. */
const REPEATS = 2
const LEAST_SIGMA = 0.02
/** Graphs must explain steps so much better than none. */
const CLEARLY = 0.95

export async function profileVllm(player: Player, options: VllmProfileOptions): Promise<VllmProfile> {
  const rounds = roundsOf(options)
  // The first steps of an engine compile.
  await player.play(rounds[0]!)
  const steps: SeenStep[] = []
  const all = options.quick ? rounds : Array.from({ length: REPEATS }, () => rounds).flat()
  for (const [done, round] of all.entries()) {
    options.onProgress?.(done, all.length)
    steps.push(...stepsOf(round, await player.play(round)))
  }
  return fitted(steps, options)
}

function fitted(steps: SeenStep[], { graphs, guess = GPU_GUESS }: VllmProfileOptions): VllmProfile {
  const shown = steps.filter((_, i) => i % HELD_OUT !== 0)
  const hidden = steps.filter((_, i) => i % HELD_OUT === 0)
  let best: { captured: CapturedGraphs | undefined; errors: Errors } | null = null
  for (const captured of graphs) {
    const errors = errorsOf(fit(shown, guess, captured), hidden)
    if (best === null || errors.p50 + errors.p90 < CLEARLY * (best.errors.p50 + best.errors.p90))
      best = { captured, errors }
  }
  const { captured, errors } = best!
  return { model: fit(steps, guess, captured), steps, heldOut: errors, faults: faultsIn(steps, errors) }
}

function fit(steps: readonly SeenStep[], guess: Coefficients, graphs: CapturedGraphs | undefined): CostModel {
  const seen = new SeenSteps(steps.length)
  for (const step of steps) seen.add(step)
  const once = (of: readonly SeenStep[]) => {
    const { pieces, launches } = fitPieces(of, beliefsOf(guess), guess.tokens, graphs)
    return modelOf(pieces, launches, 0, graphs)
  }
  const first = once(seen.all())
  const usual = seen.usual((shape) => stepUs(first, shape))
  const model = once(usual)
  const deviations = usual.map(({ shape, us }) => Math.log(us / stepUs(model, shape)))
  // Nothing is drafted here, so nothing is known of it.
  for (const piece of model.pieces) delete piece.specSteps
  return { ...model, residualSigma: Math.max(LEAST_SIGMA, sigmaOf(deviations)) }
}

export function errorsOf(model: CostModel, steps: readonly SeenStep[]): Errors {
  if (steps.length === 0) return { count: 0, p50: 0, p90: 0, p99: 0, middle: 1 }
  const ratios = steps.map(({ shape, us }) => us / stepUs(model, shape)).sort((a, b) => a - b)
  const sizes = ratios.map((ratio) => Math.abs(ratio - 1)).sort((a, b) => a - b)
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((q) => quantileSorted(sizes, q)) as [number, number, number]
  return { count: steps.length, p50, p90, p99, middle: quantileSorted(ratios, 0.5) }
}

function faultsIn(steps: readonly SeenStep[], { p50, p90 }: Errors): string[] {
  const faults: string[] = []
  const prompts = steps.filter(({ shape }) => shape.tokens > shape.sequences).length
  if (steps.length < LEAST_STEPS)
    faults.push(`only ${steps.length} steps could be told apart (at least ${LEAST_STEPS})`)
  else if (prompts < 4) faults.push(`only ${prompts} steps with a prompt could be told apart (at least 4)`)
  const percent = (share: number) => `${(100 * share).toFixed(0)}%`
  if (p50 > MOST_P50)
    faults.push(`half of the steps are off by more than ${percent(p50)} (at most ${percent(MOST_P50)})`)
  if (p90 > MOST_P90)
    faults.push(`a tenth of the steps is off by more than ${percent(p90)} (at most ${percent(MOST_P90)})`)
  return faults
}
