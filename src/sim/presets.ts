/** Published accelerators to simulate: batch-time fits and KV capacities of the models that the paper evaluates, with
 * and without a draft model for speculation. Each preset says in `source` what was published and what derived. */
import type { CostModel, CostPiece } from "../core/cost.ts"
import type { EngineLimits } from "../core/protocol.ts"

export interface Hardware {
  /** Batch time without speculation, µs. */
  cost: CostModel
  /** Batch time with a draft model beside; `specSteps` costs time. */
  draftCost?: CostModel
  /** GPUs that one replica takes. */
  gpus: number
  kvTokens: number
  /** Bytes of KV of one token: what a transfer between replicas moves. */
  kvBytesPerToken?: number
  blockTokens: number
  maxBatchTokens: number
  maxSequences: number
  /** Longest prompt + output that the workloads contain (docs/design.md, Workloads), not the model's own limit. */
  contextTokens: number
  minChunkTokens: number
  unifiedKv: boolean
  source: string
}

/** A piece as the SLOs-Serve authors' artifact gives it, seconds: k1·tokens + k2·draft steps + b. */
type Fit = readonly [k1: number, k2: number, b: number]

interface Published {
  gpus: number
  /** fp16 weights: this many parameters, two bytes each. */
  parameters: number
  layers: number
  /** Width of the keys (or values) of one token in one layer: KV heads × head size. */
  kvWidth: number
  fits: readonly Fit[]
  /** The fit with the opt-125m draft where it is another one; `fits` may hold draft costs already. */
  draftFits?: readonly Fit[]
  device: string
}

const BLOCK_TOKENS = 16
const BYTES = 2
const GPU_BYTES = 80e9
/** KV blocks that the authors' engine had for opt-6.7b on one A100-80 (artifact). */
const OPT_6_7B_BLOCKS = 6865
/** Per draft step, seconds: what the opt-125m draft costs beside opt-6.7b once it costs anything (artifact). */
const DRAFT_STEP_S = 3.465e-3
/** Spread of step times: what docs/design.md, Measurement, asks for; the planner's margin is about twice it. */
const RESIDUAL_SIGMA = 0.05

const OPT_6_7B: Published = {
  gpus: 1,
  device: "A100-80",
  parameters: 6.66e9,
  layers: 32,
  kvWidth: 4096,
  fits: [
    [6.878e-5, 0, 2.48e-2],
    [7.523e-5, 0, 3.033e-3],
  ],
  draftFits: [
    [6.878e-5, 1.249e-6, 2.48e-2],
    [7.523e-5, 3.465e-3, 3.033e-3],
  ],
}

/** Sizes from the models' published configurations, fits from the artifact (docs/design.md, Cost model). */
const PUBLISHED: Readonly<Record<string, Published>> = {
  "opt-6.7b-a100": OPT_6_7B,
  "opt-13b-2xa100": {
    gpus: 2,
    device: "2×A100-80",
    parameters: 12.85e9,
    layers: 40,
    kvWidth: 5120,
    fits: [[7.213e-5, 3.341e-3, 3.173e-2]],
  },
  "opt-30b-4xa100": {
    gpus: 4,
    device: "4×A100-80",
    parameters: 29.97e9,
    layers: 48,
    kvWidth: 7168,
    fits: [[9.314e-5, 2.797e-3, 3.788e-2]],
  },
  "qwen2.5-32b-4xa100": {
    gpus: 4,
    device: "4×A100-80",
    parameters: 32.76e9,
    layers: 64,
    kvWidth: 8 * 128,
    fits: [[1.054e-4, 4.52e-3, 4.513e-2]],
  },
  "toolllama-7b-a100": {
    gpus: 1,
    device: "A100-80",
    parameters: 6.74e9,
    layers: 32,
    kvWidth: 4096,
    fits: [[6.572e-5, 0, 2.752e-2]],
  },
  "r1-distill-qwen-7b-a100": {
    gpus: 1,
    device: "A100-80",
    parameters: 7.62e9,
    layers: 28,
    kvWidth: 4 * 128,
    fits: [
      [6.045e-5, 0, 1.401e-2],
      [0, 0, 3.0e-2],
    ],
  },
  "opt-13b-h100": {
    gpus: 1,
    device: "H100-80",
    parameters: 12.85e9,
    layers: 40,
    kvWidth: 5120,
    fits: [[4.177e-5, 0, 2.743e-2]],
  },
}

/** Bytes of KV that one token takes in fp16: keys and values of every layer. */
function kvBytesPerToken({ layers, kvWidth }: Published): number {
  return 2 * layers * kvWidth * BYTES
}

/** Share of the GPU's 80 GB that weights and KV fill together, as the authors' figure for opt-6.7b shows it (0.886:
 * the rest is activations and the 10% that vLLM leaves free). */
const USABLE_SHARE =
  (OPT_6_7B_BLOCKS * BLOCK_TOKENS * kvBytesPerToken(OPT_6_7B) + OPT_6_7B.parameters * BYTES) / GPU_BYTES

function kvTokensOf(model: Published): number {
  const left = USABLE_SHARE * GPU_BYTES * model.gpus - model.parameters * BYTES
  const blocks = Math.round(left / kvBytesPerToken(model) / BLOCK_TOKENS)
  return blocks * BLOCK_TOKENS
}

function costOf(fits: readonly Fit[]): CostModel {
  const pieces = fits.map(
    ([k1, k2, b]): CostPiece => ({
      step: b * 1e6,
      tokens: k1 * 1e6,
      ...(k2 > 0 && { specSteps: k2 * 1e6 }),
    }),
  )
  return { pieces, residualSigma: RESIDUAL_SIGMA, fastPassTokens: 1, unifiedKv: true }
}

/** Without a published fit a draft step is added to every piece: nothing of it hides behind the target model. */
function draftFitsOf(model: Published): { fits: readonly Fit[]; source: string } {
  if (model.draftFits !== undefined) return { fits: model.draftFits, source: "draft opt-125m: published fit" }
  if (model.fits.some(([, k2]) => k2 > 0))
    return { fits: model.fits, source: "published fit with a draft; without one the same, draft steps free" }
  return {
    fits: model.fits.map(([k1, , b]): Fit => [k1, DRAFT_STEP_S, b]),
    source: `draft NOT published: derived, ${(DRAFT_STEP_S * 1e3).toFixed(3)} ms a draft step as opt-125m takes beside opt-6.7b`,
  }
}

function hardwareOf(name: string, model: Published): Hardware {
  const draft = draftFitsOf(model)
  const kvSource =
    model === OPT_6_7B
      ? `KV ${OPT_6_7B_BLOCKS} blocks of ${BLOCK_TOKENS}: published`
      : `KV derived: ${(USABLE_SHARE * 100).toFixed(1)}% of ${model.gpus} × 80 GB less fp16 weights, ` +
        `${kvBytesPerToken(model) / 1024} KiB a token`
  return {
    cost: costOf(model.fits.map(([k1, , b]): Fit => [k1, 0, b])),
    draftCost: costOf(draft.fits),
    gpus: model.gpus,
    kvTokens: kvTokensOf(model),
    kvBytesPerToken: kvBytesPerToken(model),
    blockTokens: BLOCK_TOKENS,
    maxBatchTokens: 16_384,
    maxSequences: 512,
    contextTokens: 8192,
    minChunkTokens: 1,
    unifiedKv: true,
    source: `${name} (${model.device}): batch times fitted by the SLOs-Serve authors' artifact; ${draft.source}; ${kvSource}`,
  }
}

/** All presets by name: model and GPUs of one replica. */
export const HARDWARE: Readonly<Record<string, Hardware>> = Object.fromEntries(
  Object.entries(PUBLISHED).map(([name, model]) => [name, hardwareOf(name, model)]),
)

/** What the paper serves each scenario with: a key of HARDWARE. */
export const SCENARIO_HARDWARE: Readonly<Record<string, string>> = {
  chatbot: "opt-6.7b-a100",
  coder: "opt-6.7b-a100",
  summarizer: "opt-6.7b-a100",
  mixed: "opt-6.7b-a100",
  tools: "toolllama-7b-a100",
  reasoning: "r1-distill-qwen-7b-a100",
}

/** The engine's sizes as the core wants them. */
export function limitsOf(hardware: Hardware): EngineLimits {
  const { kvTokens, blockTokens, maxSequences, maxBatchTokens, contextTokens, minChunkTokens, unifiedKv } =
    hardware
  const sizes = { kvTokens, blockTokens, maxSequences, maxBatchTokens, contextTokens, minChunkTokens }
  // Engines with a unified pool keep cached blocks apart from sequences: what is cached is bounded by blocks alone.
  const cachedSequences = unifiedKv ? Math.floor(kvTokens / blockTokens) : 0
  return { ...sizes, unifiedKv, cachedSequences }
}
