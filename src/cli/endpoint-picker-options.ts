/** What `slos-serve endpoint-picker` was told on its command line. */
import type { Address } from "../fleet/picker/endpoints.ts"
import type { RewriteOptions } from "../fleet/picker/rewrite.ts"

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
