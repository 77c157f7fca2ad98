/** All that a process of `--gateways` is: it reads no config, which may be half written, or another one by now, when it is started
 * again. */
import type { ApiOptions } from "./api-options.ts"
import type { BackendOptions } from "./backend-options.ts"
import type { ServeOptions } from "./serve-options.ts"

/** Of a gateway, whichever command it is of. */
export type GatewayOptions = ApiOptions & BackendOptions

/** Before a vLLM with our planner: what its gateway is shown as, and the classes that the planner knows by name. */
export interface BeforeVllm {
  policy: string
  mostApps: number
}

export interface GatewaySetup {
  index: number
  count: number
  /** Those that the config file may change while it runs. */
  renewable: ReadonlyMap<string, unknown>
  as: { vllm: null; options: ServeOptions } | { vllm: BeforeVllm; options: GatewayOptions }
}
