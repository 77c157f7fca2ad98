/** Online correction of the cost model, apart for each kind of step, since the kinds drift in different directions
 * (docs/design.md, Cost model): by how much steps differ from the model in the mean, what the last one says of the next, and
 * how far they scatter around that. */
import { MachineSpeed } from "./machine-speed.ts"

/** `decode`: one token of each request. `mixed`: with prefill. `drafted`: decodes that verify drafted tokens. */
export const STEP_KINDS = ["decode", "mixed", "drafted"] as const
export type StepKind = (typeof STEP_KINDS)[number]

export function stepKind(withPrefill: boolean, withDrafts: boolean): StepKind {
  return withPrefill ? "mixed" : withDrafts ? "drafted" : "decode"
}

/** Weight of a new step in the mean. 0.05 follows a drift of CPU speed within ~20 steps and ignores single stalls. */
const WEIGHT = 0.05
/** A single step (page fault, descheduling) may not move the mean by more than this ratio. */
const CLAMP = 3
/** The mean itself stays within this range: outside it the profile is wrong, not drifting. */
const RANGE = 8
/** Without steps of its own a kind follows plain decodes, this much slower than it learns: what one bad moment taught of
 * drafted steps must not keep them from being tried again. */
const FORGETTING = 0.01

export class Calibration {
  #ratios!: Record<StepKind, number>
  #residuals!: Record<StepKind, Residuals>
  #hasDrafted!: boolean
  /** Of all kinds together: a machine that is slow just now is slow at all of them. */
  #speed!: MachineSpeed

  /** `residualSigma`: scatter of actual / predicted that the profile found, believed until steps were seen. */
  constructor(residualSigma = 0.05) {
    this.restart(residualSigma)
  }

  /** Nothing was seen: predictions are another model's from now on. */
  restart(residualSigma: number): void {
    const residuals = () => new Residuals(residualSigma)
    this.#ratios = { decode: 1, mixed: 1, drafted: 1 }
    this.#residuals = { decode: residuals(), mixed: residuals(), drafted: residuals() }
    this.#hasDrafted = false
    this.#speed = new MachineSpeed()
  }

  /** Multiply predicted µs by this, for steps some time ahead. */
  ratio(kind: StepKind): number {
    return this.#ratios[kind]
  }

  /** Times the ratio of its kind, for the step that begins at `nowUs`. */
  momentary(nowUs: number): number {
    return this.#speed.factor(nowUs)
  }

  /** Add so large a share of its predicted time, and few steps of the kind take longer. */
  margin(kind: StepKind): number {
    return this.#residuals[kind].margin
  }

  /** A step predicted (uncalibrated) to take `predictedUs` took `actualUs`, until `endedUs`. */
  observe(kind: StepKind, predictedUs: number, actualUs: number, endedUs = 0): void {
    if (predictedUs <= 0 || actualUs <= 0) return
    const ratios = this.#ratios
    const before = ratios[kind]
    const ratio = actualUs / predictedUs
    this.#residuals[kind].add(ratio / (before * this.#speed.factor(endedUs - actualUs)))
    this.#speed.observe(kind, ratio, actualUs, endedUs)
    const seen = Math.min(before * CLAMP, Math.max(before / CLAMP, ratio))
    ratios[kind] = Math.min(RANGE, Math.max(1 / RANGE, before + WEIGHT * (seen - before)))
    if (kind === "drafted") this.#hasDrafted = true
    else if (kind === "decode")
      ratios.drafted += (this.#hasDrafted ? FORGETTING * WEIGHT : 1) * (ratios.decode - ratios.drafted)
  }

  /** In the order of STEP_KINDS. */
  snapshot(): readonly number[] {
    return STEP_KINDS.map((kind) => this.#ratios[kind])
  }
}

/** The residual that so many steps stay below is measured; the rest is extrapolated as of a normal distribution, to the
 * three spreads that a batch needs: it lasts as long as its tightest decode can wait, and short outputs have twenty. */
const QUANTILE = 0.95
const NORMAL_QUANTILE = 1.645
const SPREADS = 3
/** Less is not to be had: the estimate itself is off by as much. More costs more than it saves. */
const LEAST_MARGIN = 0.04
const MOST_MARGIN = 0.3
/** Ratios actual / predicted in equal steps; beyond the ends they count as the end. */
const LOW = 0.7
const HIGH = 1.9
const BINS = 120
/** Steps that the profile's spread weighs as much as, and after which an old step has lost most of its weight. */
const PRIOR_STEPS = 40
const MEMORY_STEPS = 400

/** Scatter of one kind of step. */
class Residuals {
  #counts = new Float64Array(BINS)
  #total = 0
  /** Weight of the next step: it grows instead of the older ones' shrinking. */
  #weight = 1
  #margin = -1

  constructor(sigma: number) {
    let before = 0
    for (let bin = 0; bin < BINS; bin++) {
      const share = normalBelow((ratioAt(bin + 1) - 1) / Math.max(1e-3, sigma))
      this.#count(bin, PRIOR_STEPS * (share - before))
      before = share
    }
    this.#count(BINS - 1, PRIOR_STEPS * (1 - before))
  }

  add(ratio: number): void {
    const bin = Math.floor(((ratio - LOW) / (HIGH - LOW)) * BINS)
    this.#weight *= 1 + 1 / MEMORY_STEPS
    this.#count(Math.min(BINS - 1, Math.max(0, bin)), this.#weight)
    if (this.#weight > 1e6) this.#rescale()
  }

  get margin(): number {
    if (this.#margin >= 0) return this.#margin
    const goal = QUANTILE * this.#total
    let below = 0
    let bin = 0
    while (below + this.#counts[bin]! < goal) below += this.#counts[bin++]!
    const within = (goal - below) / Math.max(1e-9, this.#counts[bin]!)
    const spread = (ratioAt(bin + within) - 1) / NORMAL_QUANTILE
    this.#margin = Math.min(MOST_MARGIN, Math.max(LEAST_MARGIN, SPREADS * spread))
    return this.#margin
  }

  #count(bin: number, weight: number): void {
    this.#counts[bin] = this.#counts[bin]! + weight
    this.#total += weight
    this.#margin = -1
  }

  #rescale(): void {
    for (let bin = 0; bin < BINS; bin++) this.#counts[bin] = this.#counts[bin]! / this.#weight
    this.#total /= this.#weight
    this.#weight = 1
  }
}

function ratioAt(bin: number): number {
  return LOW + (bin / BINS) * (HIGH - LOW)
}

/** Share of a standard normal distribution below `z`: Zelen and Severo's approximation (error < 1e-7). */
function normalBelow(z: number): number {
  const t = 1 / (1 + 0.2316419 * Math.abs(z))
  const tail =
    t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
  const beyond = (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * tail
  return z >= 0 ? 1 - beyond : beyond
}
