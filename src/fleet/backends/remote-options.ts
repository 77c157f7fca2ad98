/** What a remote backend is told at its beginning. */
import type { Dispatcher } from "undici"
import type { Siblings } from "../../siblings/siblings.ts"
import type { CostFit } from "../cost-fit.ts"
import type { Serving } from "../one-model.ts"
import type { Timeouts } from "./exchange.ts"
import type { BackendKind } from "./kind.ts"
import type { RemotePlanner } from "./remote-planner.ts"

export interface RemoteHostOptions {
  name: string
  /** Scheme, host and port; a path where the API is below one. No slash at its end. */
  url: string
  /** null: what it says that it is. */
  kind: BackendKind | null
  /** It may have so many times as much as a backend of weight 1. Default 1. */
  weight?: number
  /** What clients call a model, and what the engine does. Default: whatever is asked for is the engine's first model. */
  models?: ReadonlyMap<string, string>
  /** Sent as `authorization: Bearer`. */
  apiKey?: string | null
  /** Sent as `host`, where the URL has an address in the place of a name. */
  hostHeader?: string | null
  /** Number of apps (SLO classes). */
  apps: number
  /** What was seen of engines like it (one for all of them). Default: it alone is known. */
  kin?: CostFit
  /** The engine takes priorities (vLLM: --scheduling-policy priority). */
  priority?: boolean
  /** Plans the engine's steps. While it is there it answers offers and holds what waits; else the twin does. */
  planner?: RemotePlanner | null
  /** Servers that compute its prompts. Default: it does so itself. */
  prefill?: readonly string[]
  /** Other processes of this gateway, which have requests there, too. */
  siblings?: Siblings | null
  dispatcher: Dispatcher
  timeouts: Timeouts
  /** Another one that is ready. */
  beside?: () => Serving | null
  /** Between two looks at its health and /metrics, ms. */
  probeMs: number
}
