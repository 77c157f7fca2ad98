/** One request in one line of the log. */
import { reasonOf } from "./reason.ts"
import { type AnswerRecord, keptOf } from "./record.ts"
import { msOf } from "./units.ts"

/** Of all answers to a request: tokens of all, the first token of the first, the longest gap of any; kept where all are. */
export function logLine(records: readonly AnswerRecord[]): Record<string, unknown> {
  const [{ id, tenant, className }] = records as [AnswerRecord]
  const outcomes = records.flatMap(({ outcome }) => outcome ?? [])
  const firstUs = outcomes.filter(({ firstTokenUs }) => firstTokenUs >= 0)
  const ttftUs = Math.min(...firstUs.map(({ firstTokenUs, arrivalUs }) => firstTokenUs - arrivalUs))
  return {
    ...{ id, tenant, class: className, end: endOf(records) },
    prompt_tokens: outcomes[0]?.promptTokens ?? null,
    output_tokens: outcomes.reduce((sum, { outputTokens }) => sum + outputTokens, 0),
    ttft_ms: Number.isFinite(ttftUs) ? msOf(ttftUs) : null,
    max_gap_ms: outcomes.length === 0 ? null : msOf(Math.max(...outcomes.map(({ maxGapUs }) => maxGapUs))),
    kept: allKept(records),
    ...whyOf(records),
  }
}

/** Of answers of which some was not to be kept nothing is said. */
function allKept(records: readonly AnswerRecord[]): boolean | null {
  const kept = records.map(keptOf)
  return kept.includes(null) ? null : !kept.includes(false)
}

/** How it ended; of several answers that ended otherwise the first that did not end by itself. */
function endOf(records: readonly AnswerRecord[]): string {
  const broken = records.find(({ outcome }) => outcome === null)
  return (broken ?? records[0]!).end
}

/** The first answer that was not kept says why. */
function whyOf(records: readonly AnswerRecord[]): { reason?: string; why?: string } {
  for (const { error, outcome } of records) {
    if (error !== null) return { reason: error.code, why: error.message }
    const reason = outcome && reasonOf(outcome)
    if (reason !== null) return { reason: reason.code, why: reason.text }
  }
  return {}
}
