/** What a response says of itself: usage, and how its SLO went (`metrics`; docs/design.md, API conventions). */
import type { Outcome } from "../core/protocol.ts"
import { reasonJson } from "../explain/json.ts"
import type { ResolvedSlo } from "../serve/slo-resolve.ts"
import type { Usage } from "../text/answer.ts"
import type { Delivered } from "./delivery.ts"

/** Usage of all choices together. A prompt with `perPrompt` choices counts once, as computed for the first of them. */
export function usageJson(choices: readonly Usage[], perPrompt: number): object {
  const total = (of: readonly Usage[], key: keyof Usage) => of.reduce((sum, usage) => sum + usage[key], 0)
  const prompts = choices.filter((_, i) => i % perPrompt === 0)
  const promptTokens = total(prompts, "promptTokens")
  const completionTokens = total(choices, "completionTokens")
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: total(prompts, "cachedTokens") },
    completion_tokens_details: { reasoning_tokens: total(choices, "reasoningTokens") },
  }
}

/** Times in milliseconds from arrival; null where there is none (no objective, no second token). */
export function metricsJson(
  outcome: Outcome,
  slo: ResolvedSlo,
  usage: Usage,
  { firstMs, longestGapMs }: Delivered,
): object {
  const { firstTokenUs, finishedUs, outputTokens, arrivalUs, startedUs } = outcome
  return {
    time_to_first_token_ms: ms(firstTokenUs - arrivalUs),
    mean_itl_ms: outputTokens > 1 ? ms((finishedUs - firstTokenUs) / (outputTokens - 1)) : null,
    max_gap_ms: outputTokens > 1 ? ms(outcome.maxGapUs) : null,
    time_to_first_text_ms: rounded(firstMs),
    max_text_gap_ms: rounded(longestGapMs),
    queue_time_ms: startedUs < 0 ? null : ms(startedUs - arrivalUs),
    e2e_ms: ms(finishedUs - arrivalUs),
    cached_tokens: outcome.cachedTokens,
    preemptions: outcome.preemptions,
    speculation: usage.drafts > 0 ? speculationJson(usage) : null,
    slo: {
      class: slo.class.name,
      tier: tierJson(outcome.tier),
      served_tier: tierJson(outcome.servedTier),
      attained: outcome.tier === "slo" ? outcome.attained : null,
      reason: reasonJson(outcome),
      ttft_ms: hasTtft(slo) ? ms(outcome.ttftUs) : null,
      tpot_ms: ms(slo.slo.tpotUs),
      thinking_tpot_ms: slo.thinking ? ms(slo.slo.thinkingTpotUs) : null,
      max_gap_ms: ms(slo.slo.maxGapUs),
      stages: outcome.stages.map((stage) => ({
        stage: stage.stage,
        attained: outcome.tier === "slo" ? stage.attained : null,
        worst_late_ms: outcome.tier === "slo" ? ms(stage.worstLateUs) : null,
        tokens: stage.tokens,
      })),
    },
  }
}

function speculationJson({ drafts, draftedTokens, acceptedTokens }: Usage): object {
  const share = (value: number) => Number(value.toFixed(3))
  return {
    drafts,
    drafted_tokens: draftedTokens,
    accepted_tokens: acceptedTokens,
    acceptance: share(acceptedTokens / draftedTokens),
    // Verified a step, the sure token included.
    mean_length: share(1 + draftedTokens / drafts),
  }
}

/** OpenAI's name of the tier that a request was served in; of several choices the lowest. */
export function serviceTier(outcomes: readonly Outcome[], slo: ResolvedSlo): string {
  if (outcomes.some((outcome) => outcome.servedTier === "bestEffort")) return "flex"
  return slo.priority ? "priority" : "default"
}

function tierJson(tier: Outcome["tier"]): string {
  return tier === "slo" ? "slo" : "best_effort"
}

/** The core counts a missing objective as an hour. */
function hasTtft({ slo }: ResolvedSlo): boolean {
  return slo.ttftSlowdown > 0 || Number.isFinite(slo.ttftUs)
}

function rounded(time: number | null): number | null {
  return time === null ? null : Math.round(time * 1000) / 1000
}

function ms(us: number): number | null {
  return Number.isFinite(us) ? Math.round(us) / 1000 : null
}
