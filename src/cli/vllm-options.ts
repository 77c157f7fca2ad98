/** What `slos-serve vllm` was told on its command line, before the --. */
import type { ApiOptions } from "./api-options.ts"

export interface VllmOptions extends ApiOptions {
  policy: string
  /** Of the policy, as name=value. */
  set: string[]
  vllm?: string
  vllmLog?: string
  verbose?: boolean
  backendTimeout: number
  gateways: number
  metricsPort?: number
}
