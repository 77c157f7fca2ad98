/** What `slos-serve endpoint-picker` was told on its command line. */
import type { Address } from "../fleet/picker/endpoints.ts"
import type { RewriteOptions } from "../fleet/picker/rewrite.ts"

/** Engines whose batching a twin knows. */
export const ENGINE_KINDS = ["vllm", "sglang", "llama-server", "openai"] as const
export type EngineKind = (typeof ENGINE_KINDS)[number]

export interface PickerCommand {
  endpoint?: Address[]
  endpointsFile?: string
  config?: string
  host: string
  port: number
  metricsPort: number
  metrics: boolean
  tlsCert?: string
  tlsKey?: string
  tlsClientCa?: string
  by: "twins" | "load"
  kind: EngineKind
  probeEvery: number
  probeTls?: boolean
  inFlight: number
  mostHeld: number
  heldMemory: number
  longestHold: number
  late: "send" | "shed"
  priority: RewriteOptions["priority"]
  sloArguments?: boolean
  fallbacks: number
  bodyLimit: number
  drainTimeout: number
  logLevel?: string
}
