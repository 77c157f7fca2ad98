/** What `slos-serve serve` was told on its command line. */
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { ParseSpecial } from "../serve/prompt-reader.ts"
import type { ApiOptions } from "./api-options.ts"
import type { BackendOptions } from "./backend-options.ts"

export interface ServeOptions extends ApiOptions, BackendOptions {
  model: string
  policy: PolicyName
  threads?: number
  replicas: number
  /** Where each replica runs, in turn. */
  device?: string
  /** Left out: what suits model and machine. */
  maxSequences?: number
  context?: number
  kvTokens?: number
  kvUnified?: boolean
  flashAttention?: boolean
  kvType?: "f16" | "f32" | "q8_0"
  maxBatchTokens: number
  defaultMaxTokens: number
  parseSpecial: ParseSpecial
  sharePrefixes?: boolean
  margin?: number
  maxBatchMs?: number
  bestEffortMs?: number
  tokenBudget?: number
  admission?: PolicyOptions["admission"]
  /** lookup, off or draft=<model>. */
  speculate: string
  maxSpeculation: number
  gpuLayers?: number
  library: string
  engine: "llama" | "fake"
  profile: boolean
  offline?: boolean
  stepTimeout: number
  scaleTarget: number
  scaleEvery: number
  scaleWindow: number
  scaleDownAfter: number
  coldStart: number
  mostReplicas: number
}
