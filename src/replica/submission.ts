/** What the driver is given: one request with its counts for the core, its tokens for the engine, its callbacks for the text. */
import type { ZeroLoadUs } from "../core/moved.ts"
import type {
  FinishReason,
  Outcome,
  Progress,
  RejectReason,
  RequestId,
  RequestSpec,
  Slo,
  StepResult,
  Tier,
} from "../core/protocol.ts"
import { progressOf, type Seen } from "../core/seen.ts"
import { GREEDY, type Sampling, type StepRow } from "../engine/port.ts"

/** What the core and the engine must know of a request. */
export interface Requested {
  app: number
  /** See RequestSpec. */
  tenant?: number
  /** Tool session, or -1. */
  session: number
  prompt: Int32Array
  /** Chain hash of each full KV block of the prompt. */
  prefix: readonly number[]
  maxOutputTokens: number
  sampling: Sampling
  slo: Slo
  tier: Tier
  /** See RequestSpec. */
  worth?: number
  thinking: boolean
  /** See RequestSpec. */
  allRows?: boolean
  /** See RequestSpec. */
  alone?: boolean
  /** Another request with the same prompt: this one arrives at the core when that one has its first token (or has
   * ended), to find its KV. Its SLO counts from `arrivalUs` all the same. */
  after?: RequestId
  /** When it reached the server, on the driver's clock; now if left out. */
  arrivalUs?: number
  /** It goes on where another replica stopped. `prompt` and `prefix` are the prompt's all the same. */
  begun?: BegunElsewhere
}

/** What a request has produced elsewhere, and how that went. */
export interface BegunElsewhere extends Seen {
  output: Int32Array
}

/** One request as the driver takes it: counts for the core, tokens for the engine, callbacks for the text side. */
export interface Submission extends Requested {
  /** After each step that gave this request tokens; synchronous, quick. Says how the text side sees them. */
  onTokens(
    row: StepRow,
  ): Pick<StepResult, "stopped" | "answeringFrom" | "prefix"> & Partial<Pick<StepResult, "tokens">>
  /** Exactly once. */
  onEnd(end: End): void
}

/** `outcome` is null when the core has not seen the request, or rejected it. */
export interface End {
  reason: FinishReason | RejectReason
  outcome: Outcome | null
  message?: string
}

/** As the core is told of it. `zeroLoadUs`: see progressOf. */
export function arrivalOf(
  id: RequestId,
  requested: Requested,
  zeroLoadUs: ZeroLoadUs,
): { request: RequestSpec; progress?: Progress } {
  const { app, tenant, session, prefix, maxOutputTokens, slo, tier, worth, thinking, arrivalUs } = requested
  const { allRows, alone } = requested
  const request: RequestSpec = {
    ...{ id, app, session, prefix, maxOutputTokens, slo, tier, thinking },
    ...(tenant !== undefined && { tenant }),
    ...(worth !== undefined && { worth }),
    ...(allRows && { allRows }),
    ...(alone && { alone }),
    ...(arrivalUs !== undefined && { arrivalUs }),
    promptTokens: requested.prompt.length,
  }
  const { begun } = requested
  return begun === undefined ? { request } : { request, progress: progressOf(request, begun, zeroLoadUs) }
}

/** One token by itself: token 0 is in every vocabulary. */
const PROBE: Omit<Submission, "onEnd"> = {
  ...{ app: 0, session: -1, prompt: Int32Array.of(0), prefix: [], maxOutputTokens: 1, thinking: false },
  sampling: { ...GREEDY, ignoreEos: true },
  slo: { ttftUs: Infinity, ttftSlowdown: 0, tpotUs: Infinity, thinkingTpotUs: Infinity, maxGapUs: Infinity },
  tier: "bestEffort",
  alone: true,
  onTokens: (row) => ({ stopped: row.end, answeringFrom: -1 }),
}

/** A request that shows whether the engine computes. */
export function probeThat(onEnd: Submission["onEnd"]): Submission {
  return { ...PROBE, onEnd }
}
