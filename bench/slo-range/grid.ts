/** The cells of the SLO range: which TPOTs, TTFTs and loads are tried, and which settings compete in each. */
import { type CostModel, shapeOf, stepUs } from "../../src/core/cost.ts"
import type { PolicyOptions } from "../../src/core/options.ts"
import type { PolicyName } from "../../src/core/policy/index.ts"
import type { SloClass } from "../../src/load/classes.ts"
import { HARDWARE } from "../../src/sim/presets.ts"
import { RUN_DEFAULTS } from "../../src/study/spec.ts"
import type { CompareTask } from "../../src/study/tasks.ts"

const HARDWARE_NAME = "opt-6.7b-a100"

/** Requests/s that `slos-serve` holds at each scenario's usual SLOs, and the class that its requests have. Constants, so
 * that loads mean the same rates after every change of a policy. Measured once, on one replica of the hardware above:
 * `slos-serve capacity --scenarios chatbot,coder,shared --policies slos-serve --replicas 1 --requests 400 --speculate off
 * --seeds 3`. */
export const CAPACITIES: Readonly<Record<string, { ratePerSec: number; class: string }>> = {
  chatbot: { ratePerSec: 6.83, class: "chat" },
  coder: { ratePerSec: 3.62, class: "code" },
  shared: { ratePerSec: 3.03, class: "chat" },
}

/** TPOTs as multiples of the floor. */
export const TPOT_FACTORS: readonly number[] = [0.8, 0.95, 1.05, 1.3, 2, 4, 10, 20]
export const QUICK_TPOT_FACTORS: readonly number[] = [0.8, 1.05, 2, 10]

export interface Ttft {
  label: string
  slo: Pick<SloClass, "ttftMs" | "ttftSlowdown">
}

const slowdown = (factor: number): Ttft => ({ label: `${factor}×`, slo: { ttftSlowdown: factor } })
const NO_TTFT: Ttft = { label: "none", slo: {} }

/** Multiples are of each prompt's own zero-load prefill time. */
export const TTFTS: readonly Ttft[] = [
  ...[1.1, 1.5, 2, 3, 5].map(slowdown),
  { label: "2 s", slo: { ttftMs: 2000 } },
  { label: "30 s", slo: { ttftMs: 30_000 } },
  NO_TTFT,
]
export const QUICK_TTFTS: readonly Ttft[] = [slowdown(1.1), slowdown(2), slowdown(5), NO_TTFT]

export const LOADS: readonly number[] = [0.5, 1, 1.5]

/** The shortest step that the hardware can do: one decode and nothing else. No token after the first can come faster,
 * but a short answer's tokens may all come within the slack of its TTFT. */
export function floorUs(cost: CostModel): number {
  return stepUs(cost, shapeOf([{ position: 1, tokens: 1, sample: true, draft: 0 }], cost))
}

/** One configuration that runs in every cell. */
export interface Contender {
  name: string
  label: string
  policy: PolicyName
  options: Partial<PolicyOptions>
}

export const OURS: Contender = { name: "slos-serve", label: "defaults", policy: "slos-serve", options: {} }

function contender(policy: PolicyName, options: Partial<PolicyOptions>): Contender {
  const label = Object.entries(options).map(([name, value]) => `${name}=${value}`)
  return { name: policy, label: label.join(" "), policy, options }
}

/** The last is the default, whatever that is. */
const MARGINS: readonly Partial<PolicyOptions>[] = [{ margin: 0.1 }, { margin: 0.2 }, {}]

/** The best of the simple rivals' settings is chosen in each cell anew: a rival tuned to its very workload. */
export const RIVALS: readonly Contender[] = [
  ...[256, 512, 1024, 2048, 4096, 8192].map((tokenBudget) => contender("vllm", { tokenBudget })),
  ...MARGINS.flatMap((margin) =>
    [50_000, 100_000].map((maxBatchUs) => contender("edf-drop", { ...margin, maxBatchUs })),
  ),
  ...[0, 1].map((hybridAlpha) => contender("qoserve", { hybridAlpha })),
]

/** One pair of objectives at one load of one scenario. */
export interface Cell {
  scenario: string
  load: number
  tpotFactor: number
  tpotMs: number
  ttft: Ttft
}

export interface GridOptions {
  scenarios: readonly string[]
  loads: readonly number[]
  quick: boolean
}

export function cellsOf({ scenarios, loads, quick }: GridOptions): Cell[] {
  const floorMs = floorUs(HARDWARE[HARDWARE_NAME]!.cost) / 1000
  const factors = quick ? QUICK_TPOT_FACTORS : TPOT_FACTORS
  const ttfts = quick ? QUICK_TTFTS : TTFTS
  return scenarios.flatMap((scenario) =>
    loads.flatMap((load) =>
      ttfts.flatMap((ttft) =>
        factors.map((tpotFactor) => ({ scenario, load, tpotFactor, tpotMs: tpotFactor * floorMs, ttft })),
      ),
    ),
  )
}

/** The i-th of n slices (from 1): every n-th cell, so that all slices take about as long. */
export function sliceOf<T>(cells: readonly T[], { i, n }: { i: number; n: number }): T[] {
  return cells.filter((_, index) => index % n === i - 1)
}

export interface RunSize {
  requests: number
  seeds: readonly number[]
}

export function taskOf(cell: Cell, contenders: readonly Contender[], size: RunSize): CompareTask {
  const hardware = HARDWARE[HARDWARE_NAME]!
  const capacity = CAPACITIES[cell.scenario]!
  const ratePerSec = capacity.ratePerSec * cell.load
  return {
    kind: "compare",
    base: {
      ...RUN_DEFAULTS,
      scenario: cell.scenario,
      policy: OURS.policy,
      hardware,
      ratePerSec,
      durationS: 0,
      classes: { [capacity.class]: { ...cell.ttft.slo, tpotMs: cell.tpotMs } },
      maxSequenceTokens: hardware.contextTokens - 1,
    },
    size: { requests: size.requests, spanS: 0 },
    ratePerSec,
    seeds: [...size.seeds],
    settings: contenders.map(({ policy, options }) => ({ policy, options })),
  }
}
