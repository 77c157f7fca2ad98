/** What is kept of one answer, so that it can be said later why it was slow. */
import type { Outcome, Slo, Tier } from "../core/protocol.ts"

export interface AnswerRecord {
  /** Of its request, as the response's header x-request-id has it. */
  id: string
  /** Which of its answers, of how many. */
  choice: number
  choices: number
  tenant: string
  /** Name of its SLO class. */
  className: string
  tier: Tier
  /** As it was asked for; Infinity: no objective. */
  slo: Slo
  thinking: boolean
  /** Unix time, ms. */
  arrivedMs: number
  endedMs: number
  /** `refused`: there was no room for it. `invalid`: it asked for what cannot be served. */
  end: "stop" | "length" | "tool_calls" | "cancelled" | "failed" | "refused" | "invalid"
  /** Why it failed or was refused. */
  error: { code: string; message: string } | null
  /** null where it did not end by itself. */
  outcome: Outcome | null
  /** Of one that was refused: when the planner would have had room, ms; null: not known. */
  expectedWaitMs: number | null
  /** Requests that ended a second about then. */
  ratePerSec: number
}

/** Whether it kept its objectives; null where it had none, or its client saw to it that there was nothing to keep. */
export function keptOf({ tier, outcome, end }: AnswerRecord): boolean | null {
  if (tier === "bestEffort" || end === "cancelled" || end === "invalid") return null
  return outcome?.attained ?? false
}

export function isMissed(record: AnswerRecord): boolean {
  return keptOf(record) === false
}

const BASE_BYTES = 500
const BYTES_PER_NUMBER = 8
const BYTES_PER_DECISION = 100
const BYTES_PER_STAGE = 120

/** About what it holds of the memory. */
export function bytesOf({ id, tenant, className, error, outcome }: AnswerRecord): number {
  const texts = 2 * (id.length + tenant.length + className.length + (error?.message.length ?? 0))
  if (outcome === null) return BASE_BYTES + texts
  const { account, stages } = outcome
  const numbers =
    (account?.parts.length ?? 0) + (account?.toFirst?.length ?? 0) + (account?.miss?.parts.length ?? 0)
  const decisions = account?.decisions.length ?? 0
  return (
    BASE_BYTES +
    texts +
    numbers * BYTES_PER_NUMBER +
    decisions * BYTES_PER_DECISION +
    stages.length * BYTES_PER_STAGE
  )
}
