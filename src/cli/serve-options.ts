/** What `slos-serve serve` was told on its command line. */
import type { TenantConfig } from "../config/tenants.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { ParseSpecial } from "../serve/prompt-reader.ts"
import type { BackendOptions } from "./backend-options.ts"

export interface ServeOptions extends BackendOptions {
  model: string
  servedName?: string
  host: string
  port: number
  policy: PolicyName
  config?: string
  threads?: number
  replicas: number
  /** Where each replica runs, in turn. */
  device?: string
  maxSequences: number
  context: number
  kvTokens?: number
  kvUnified?: boolean
  kvType?: "f16" | "f32" | "q8_0"
  maxBatchTokens: number
  maxQueue: number
  defaultMaxTokens: number
  parseSpecial: ParseSpecial
  tenant?: TenantConfig[]
  requireKey: boolean
  trustFairnessId?: boolean
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
  bodyLimit: number
  requestTimeout: number
  stepTimeout: number
  drainTimeout: number
  scaleTarget: number
  scaleEvery: number
  scaleWindow: number
  scaleDownAfter: number
  coldStart: number
  mostReplicas: number
  logLevel?: string
}
