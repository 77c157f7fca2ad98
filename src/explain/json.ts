/** An explained answer as JSON: GET /v1/slo/requests, `slos-serve explain --json`, and the reason in responses. */
import type { Decision, Outcome, Slo, Tier } from "../core/protocol.ts"
import { TIME_PARTS } from "../core/time-account.ts"
import { PART_NAMES, reasonOf, remedyOf } from "./reason.ts"
import { type AnswerRecord, keptOf } from "./record.ts"
import { msOf } from "./units.ts"

/** Times of an answer by what they went into, ms: they add up to the whole. */
export type PartsJson = Record<string, number>

export interface ReasonJson {
  code: string
  bound: string | null
  text: string
  late_ms: number | null
  /** Objectives that would have been kept, and the share of the load with which these would. */
  would_have_kept: { ttft_ms?: number; tpot_ms?: number; max_gap_ms?: number; load: number | null } | null
}

export interface AnswerJson {
  id: string
  choice: number
  choices: number
  tenant: string
  class: string
  arrived_at: string
  ended_at: string
  end: string
  error: { code: string; message: string } | null
  tier: string
  served_tier: string | null
  attained: boolean | null
  prompt_tokens: number | null
  cached_tokens: number | null
  output_tokens: number | null
  time_to_first_token_ms: number | null
  max_gap_ms: number | null
  e2e_ms: number
  preemptions: number | null
  slo: { ttft_ms: number | null; tpot_ms: number | null; max_gap_ms: number | null }
  reason: ReasonJson | null
  time: PartsJson | null
  time_to_first_token: PartsJson | null
  /** What the time before the first late token went into. */
  time_before_late: PartsJson | null
  late_token: { token: number; stage: string; objective: string } | null
  decisions: { after_ms: number; what: string; reason: string | null; bound: string | null }[]
  requests_per_sec: number
  expected_wait_ms: number | null
}

export function partsJson(parts: readonly number[]): PartsJson {
  return Object.fromEntries(TIME_PARTS.map((part, i) => [`${PART_NAMES[part]}_ms`, msOf(parts[i] ?? 0)]))
}

/** null where all was kept, or nothing was asked for. */
export function reasonJson(outcome: Outcome): ReasonJson | null {
  const reason = reasonOf(outcome)
  if (reason === null) return null
  const { account } = outcome
  const remedy = account === undefined ? null : remedyOf(account)
  const { ttftUs = 0, tpotUs = 0, maxGapUs = 0 } = remedy?.needs ?? {}
  const wouldHave = remedy && {
    ...(ttftUs > 0 && { ttft_ms: msOf(ttftUs) }),
    ...(tpotUs > 0 && { tpot_ms: msOf(tpotUs) }),
    ...(maxGapUs > 0 && { max_gap_ms: msOf(maxGapUs) }),
    load: remedy.load === null ? null : Number(remedy.load.toFixed(3)),
  }
  const lateUs = account?.miss?.lateUs
  return { ...reason, late_ms: lateUs === undefined ? null : msOf(lateUs), would_have_kept: wouldHave }
}

export function answerJson(record: AnswerRecord): AnswerJson {
  const { id, choice, choices, tenant, className, arrivedMs, endedMs, end, error, outcome } = record
  return {
    ...{ id, choice, choices, tenant, class: className },
    arrived_at: new Date(arrivedMs).toISOString(),
    ended_at: new Date(endedMs).toISOString(),
    ...{ end, error, tier: tierJson(record.tier) },
    ...(outcome === null ? unknown(record) : known(outcome)),
    slo: sloJson(record.slo, outcome),
    requests_per_sec: Number(record.ratePerSec.toFixed(3)),
    expected_wait_ms: record.expectedWaitMs === null ? null : Math.round(record.expectedWaitMs),
  }
}

/** Nothing but when it came and went. */
function unknown(record: AnswerRecord) {
  const { arrivedMs, endedMs } = record
  return {
    ...{
      served_tier: null,
      attained: keptOf(record),
      prompt_tokens: null,
      cached_tokens: null,
    },
    ...{ output_tokens: null, time_to_first_token_ms: null, max_gap_ms: null, preemptions: null },
    e2e_ms: Math.round(endedMs - arrivedMs),
    ...{ reason: null, time: null, time_to_first_token: null, time_before_late: null, late_token: null },
    decisions: [],
  }
}

function known(outcome: Outcome) {
  const { account, arrivalUs, firstTokenUs, finishedUs, outputTokens, maxGapUs } = outcome
  const { miss = null, toFirst = null, decisions = [] } = account ?? {}
  return {
    served_tier: tierJson(outcome.servedTier),
    attained: outcome.tier === "slo" ? outcome.attained : null,
    ...{
      prompt_tokens: outcome.promptTokens,
      cached_tokens: outcome.cachedTokens,
      output_tokens: outputTokens,
    },
    time_to_first_token_ms: firstTokenUs < 0 ? null : msOf(firstTokenUs - arrivalUs),
    max_gap_ms: outputTokens > 1 ? msOf(maxGapUs) : null,
    ...{ e2e_ms: msOf(finishedUs - arrivalUs), preemptions: outcome.preemptions },
    reason: reasonJson(outcome),
    time: account === undefined ? null : partsJson(account.parts),
    time_to_first_token: toFirst && partsJson(toFirst),
    time_before_late: miss && partsJson(miss.parts),
    late_token: miss && { token: miss.token, stage: miss.stage, objective: OBJECTIVES[miss.objective] },
    decisions: decisions.map(decisionJson),
  }
}

const OBJECTIVES = { ttft: "ttft", tpot: "tpot", maxGap: "max_gap" } as const
const DECISIONS = {
  ...{ promised: "promised", turnedDown: "turned_down", cameBack: "came_back", preempted: "preempted" },
} as const
const REASONS = { wontFit: "wont_fit", violated: "violated", revoked: "revoked" } as const

function decisionJson({ afterUs, what, reason, bound }: Decision) {
  const why = reason === undefined ? null : REASONS[reason]
  return { after_ms: msOf(afterUs), what: DECISIONS[what], reason: why, bound: bound ?? null }
}

/** A TTFT that was asked for as a slowdown is known once it has come to the core. */
function sloJson({ ttftUs, ttftSlowdown, tpotUs, maxGapUs }: Slo, outcome: Outcome | null) {
  const finite = (us: number) => (Number.isFinite(us) ? msOf(us) : null)
  const ttft = ttftSlowdown > 0 ? (outcome?.ttftUs ?? Number.POSITIVE_INFINITY) : ttftUs
  return { ttft_ms: finite(ttft), tpot_ms: finite(tpotUs), max_gap_ms: finite(maxGapUs) }
}

function tierJson(tier: Tier): string {
  return tier === "slo" ? "slo" : "best_effort"
}
