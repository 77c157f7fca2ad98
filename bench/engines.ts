/** Simulated engines, and requests as those of bench/vllm/attain.ts: bursts of three classes, objectives by the engine's own speed. */
import { type CostModel, shapeOf, stepUs } from "../src/core/cost.ts"
import type { EngineLimits } from "../src/core/protocol.ts"
import { type Coefficients, CPU_GUESS, GPU_GUESS, LAYOUT } from "../src/fit/guess.ts"
import { Random } from "../src/random.ts"
import type { FleetOptions } from "../src/sim/fleet.ts"

export interface Engine {
  name: string
  /** What its device makes one guess. */
  guess: Coefficients
  pieces: CostModel["pieces"]
  work: Work
}
interface Kind {
  share: number
  prompt: number
  output: number
}
interface Work {
  kinds: readonly [chat: Kind, code: Kind, long: Kind]
  /** So many decode together where the engine is not idle. */
  decodes: number
  budgets: readonly number[]
  limits: EngineLimits
}

const LIMITS = { blockTokens: 32, minChunkTokens: 1, unifiedKv: true, cachedSequences: 0 }
const ON_CPU: Work = {
  kinds: [
    { share: 0.4, prompt: 64, output: 32 },
    { share: 0.4, prompt: 256, output: 16 },
    { share: 0.2, prompt: 512, output: 32 },
  ],
  decodes: 8,
  budgets: [64, 256, 2048],
  limits: { ...LIMITS, kvTokens: 32_768, maxSequences: 32, maxBatchTokens: 2048, contextTokens: 1024 },
}
const ON_GPU: Work = {
  kinds: [
    { share: 0.4, prompt: 512, output: 128 },
    { share: 0.4, prompt: 2048, output: 64 },
    { share: 0.2, prompt: 6144, output: 128 },
  ],
  decodes: 64,
  budgets: [512, 2048, 8192],
  limits: { ...LIMITS, kvTokens: 400_000, maxSequences: 256, maxBatchTokens: 8192, contextTokens: 8192 },
}
/** Processors: as measured of vLLM 0.32 (bench/results/vllm/first). GPUs: weights read once, arithmetic from some size on. */
export const ENGINES: readonly Engine[] = [
  {
    ...{ name: "tiny on a core", guess: CPU_GUESS, work: ON_CPU },
    pieces: [{ step: 12_400, tokens: 225, sequences: 380, fastPairs: 0.02, slowPairs: 0.05 }],
  },
  {
    ...{ name: "SmolLM2 on a core", guess: CPU_GUESS, work: ON_CPU },
    pieces: [{ step: 60_000, tokens: 3400, sequences: 3200, fastPairs: 0.9, slowPairs: 1 }],
  },
  {
    ...{ name: "8B on a fast GPU", guess: GPU_GUESS, work: ON_GPU },
    pieces: [
      { step: 9000, sequences: 15, slowPairs: 0.04, fastPairs: 0.001 },
      { step: 1000, tokens: 25, sequences: 15, slowPairs: 0.04, fastPairs: 0.001 },
    ],
  },
  {
    ...{ name: "1B on a fast GPU", guess: GPU_GUESS, work: ON_GPU },
    pieces: [{ step: 3000, tokens: 4, sequences: 8, slowPairs: 0.005, fastPairs: 0.0003 }],
  },
  {
    ...{ name: "32B on older GPUs", guess: GPU_GUESS, work: ON_GPU },
    pieces: [{ step: 45_130, tokens: 105 }],
  },
]
/** Shape of the gamma distribution of gaps. */
const BURSTINESS = 0.35

/** What its steps really take. */
export const truthOf = ({ pieces }: Engine): CostModel => ({
  pieces: [...pieces],
  residualSigma: 0.05,
  ...LAYOUT,
})

/** Alone, µs: a prompt of so many tokens, and a step of the usual decodes. */
function speedOf(engine: Engine) {
  const cost = truthOf(engine)
  const time = (items: Parameters<typeof shapeOf>[0]) => stepUs(cost, shapeOf(items, cost))
  const promptUs = (tokens: number) => time([{ position: 0, tokens, sample: true, draft: 0 }])
  const decode = { position: 24, tokens: 1, sample: true, draft: 0 }
  return { promptUs, decodeUs: time(Array.from({ length: engine.work.decodes }, () => decode)) }
}

/** As bench/vllm/workload.py. */
function objectivesOf(engine: Engine): { ttftUs: number; tpotUs: number }[] {
  const { promptUs, decodeUs } = speedOf(engine)
  const [chat, code, long] = engine.work.kinds.map(({ prompt }) => promptUs(prompt)) as [
    number,
    number,
    number,
  ]
  return [
    { ttftUs: Math.max(6 * chat, 12 * decodeUs), tpotUs: 4 * decodeUs },
    { ttftUs: 4 * code + 6 * decodeUs, tpotUs: 6 * decodeUs },
    { ttftUs: 6 * long, tpotUs: 5 * decodeUs },
  ].map(({ ttftUs, tpotUs }) => ({ ttftUs: Math.round(ttftUs), tpotUs: Math.round(tpotUs) }))
}

function ratePerUs(engine: Engine): number {
  const { promptUs, decodeUs } = speedOf(engine)
  const { kinds, decodes } = engine.work
  const each = kinds.reduce(
    (sum, { share, prompt, output }) => sum + share * (promptUs(prompt) + (output * decodeUs) / decodes),
    0,
  )
  return 1 / each
}

/** Bursts at so large a share of what the engine could compute, the same for every system. */
export function arrivalsOf(
  engine: Engine,
  relative: number,
  { seed, requests }: { seed: number; requests: number },
): FleetOptions["requests"] {
  const random = new Random("cold-start", engine.name, seed)
  const objectives = objectivesOf(engine)
  const meanUs = 1 / (relative * ratePerUs(engine))
  let atUs = 0
  return Array.from({ length: requests }, (_, id) => {
    atUs += (random.gamma(BURSTINESS) / BURSTINESS) * meanUs
    const drawn = random.uniform()
    const app = drawn < 0.4 ? 0 : drawn < 0.8 ? 1 : 2
    const { prompt, output } = engine.work.kinds[app]!
    const slo = {
      ...objectives[app]!,
      ttftSlowdown: 0,
      thinkingTpotUs: objectives[app]!.tpotUs,
      maxGapUs: Infinity,
    }
    return {
      ...{ atUs: Math.round(atUs), outputTokens: output, thinkingTokens: 0 },
      spec: {
        id,
        app,
        session: -1,
        promptTokens: prompt,
        maxOutputTokens: output,
        prefix: [],
        slo,
        tier: "slo" as const,
        thinking: false,
      },
    }
  })
}
