/** Whether a profile deserves to be believed, in words where it does not. */
import { type CostModel, type StepShape, stepUs } from "../core/cost.ts"
import type { FitQuality } from "./fit.ts"
import type { ProfileSample } from "./measure.ts"
import { isSettled } from "./repeats.ts"

/** A quiet machine gives 0.94 and more, and 5 to 8%. Below and above this planning is guesswork. */
const LEAST_R2 = 0.9
const MOST_ERROR = 0.15
/** No engine computes a token faster, µs. */
const LEAST_STEP_US = 5
/** Worth telling. */
const BUSY_SHARE = 0.05

export interface Measured {
  model: CostModel
  samples: readonly ProfileSample[]
}

type Fit = Pick<FitQuality, "r2" | "mape">

/** What is wrong with it; empty: nothing. */
export function faultsOf({ model, r2, mape }: Pick<Measured, "model"> & Fit): string[] {
  const faults: string[] = []
  // Also where it is not a number.
  if (!(r2 >= LEAST_R2)) faults.push(`R² is ${r2.toFixed(2)} (at least ${LEAST_R2})`)
  if (!(mape <= MOST_ERROR))
    faults.push(`the mean error is ${percent(mape)} (at most ${percent(MOST_ERROR)})`)
  return [...faults, ...physicalFaults(model)]
}

/** A step takes some time, and more tokens take no less. */
export function physicalFaults(model: CostModel): string[] {
  const times = [1, 16, 64, 512].map((tokens) => stepUs(model, lone(tokens)))
  const faults: string[] = []
  if (!(times[0]! >= LEAST_STEP_US)) faults.push(`a step of one token would take ${times[0]!.toFixed(1)} µs`)
  if (times.some((us, i) => i > 0 && us < times[i - 1]!)) faults.push("more tokens would take less time")
  return faults
}

function lone(tokens: number): StepShape {
  const pairs = (tokens * (tokens + 1)) / 2
  return { tokens, sequences: 1, passes: 1, fastPairs: pairs, slowPairs: 0, outputs: 1, specSteps: 0 }
}

/** Share of the repeated batches no two repeats of which agree: what the machine scatters beyond what it waits. The fit says
 * whether that mattered. */
export function unsettledShare(samples: readonly ProfileSample[]): number {
  const repeated = [...Map.groupBy(samples, ({ point }) => point).values()].filter(({ length }) => length > 1)
  const unsettled = repeated.filter((group) => !isSettled(group.map(({ us }) => us)))
  return unsettled.length / Math.max(1, repeated.length)
}

/** Share of the steps' time that their threads waited for a core. */
export function busyShare(samples: readonly ProfileSample[]): number {
  const waited = samples.reduce((sum, { waitedUs }) => sum + waitedUs, 0)
  return waited / Math.max(1, waited + samples.reduce((sum, { us }) => sum + us, 0))
}

/** One line: how good it is, and how busy the machine was. */
export function summary(profile: Measured & Fit): string {
  const busy = busyShare(profile.samples)
  const busyText =
    busy < BUSY_SHARE
      ? ""
      : `; other programs had the cores for ${percent(busy)} of the time, which is taken out`
  return `R² ${profile.r2.toFixed(3)}, mean error ${percent(profile.mape)}${busyText}`
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`
}
