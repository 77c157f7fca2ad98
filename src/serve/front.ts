/** What generates answers behind the HTTP API: one replica in this process, or a fleet of them. */
import type { Snapshot } from "../core/protocol.ts"
import type { ModelInfo } from "../engine/port.ts"
import type { AnswerRecord } from "../explain/record.ts"
import type { EngineHealth, HostState, ReplicaHost } from "../replica/host.ts"
import type { Observed } from "../replica/observed.ts"
import type { PlannerView } from "../replica/planner-view.ts"
import type { FiguresByTenant } from "../telemetry/tenant-figures.ts"
import type { AnswerSink } from "../text/answer.ts"
import type { GenerationRequest } from "./intake.ts"
import type { TokenReader } from "./token-reader.ts"

/** Places for live requests. */
export interface QueueView {
  readonly limit: number
  readonly taken: number
  /** Places that a tenant has, by its number. */
  takenBy(tenant: number): number
}

/** What a server's operator may change while it serves. */
export interface Shares {
  maxQueue: number
  /** By number, as `Tenants.weights`. */
  weights: readonly number[]
  /** Tenants that a replica of its own process has to know by name, with their weights. */
  tenants: readonly { name: string; weight: number }[]
}

/** One replica of a fleet, as shown. */
export interface ReplicaRow {
  name: string
  state: HostState
  /** Why it is not ready; empty while it is. */
  detail: string
  /** null before it said how it is. */
  snapshot: Snapshot | null
  /** Age of that, µs. */
  ageUs: number
  /** Times it was started anew. */
  restarts: number
}

export interface Front {
  /** An engine computes in this very process. */
  readonly engineHere: boolean
  /** It answers requests; a planner only says how others do. */
  readonly generates: boolean
  readonly model: ModelInfo
  readonly contextTokens: number
  /** No token stands for more bytes of text. */
  readonly longestTokenBytes: number
  /** Bytes of a token; null when it is none, or tokens are unknown. */
  tokenBytes(token: number): Uint8Array | null
  /** Texts as tokens; null: prompts are read elsewhere, by replicas or backends. */
  readonly tokens: TokenReader | null
  /** On one clock, for windows and rates. */
  readonly nowUs: number
  readonly queue: QueueView
  readonly figures: FiguresByTenant
  /** Whether what computes does. */
  readonly watch: EngineHealth
  /** One row a replica; empty where there is but one, in this process. */
  readonly replicas: readonly ReplicaRow[]
  /** Of a replica that stands for all; null where none is known. */
  readonly planner: PlannerView | null
  /** As gateways may ask it for offers; null: it is a gateway itself. */
  readonly replica: ReplicaHost | null
  /** All replicas together. */
  snapshot(): Snapshot
  onObserved(listener: (observed: Observed) => void): void
  /** Of answers that do not come by `start`; left out: all do. */
  onAnswered?(listener: (record: AnswerRecord) => void): void
  /** Starts the requests of one exchange, each once for each of its sinks; the first request's sinks come first. What
   * becomes of them goes to the sinks. Throws UserError for what is refused at once. */
  start(requests: readonly GenerationRequest[], sinks: readonly AnswerSink[]): Promise<void>
  /** Other shares of tenants, and another length of the queue, from now on; left out: it keeps those that it has. */
  renew?(shares: Shares): void
  drain(): Promise<void>
  close(): Promise<void>
}
