/** Answers as tests need them. */
import type { Account, Miss, Outcome, TimePart } from "../core/protocol.ts"
import { TIME_PARTS } from "../core/time-account.ts"
import type { AnswerRecord } from "./record.ts"

export { TIME_PARTS, type TimePart }

export function missOf(changes: Partial<Miss>, took: Partial<Record<TimePart, number>> = {}): Miss {
  const parts = TIME_PARTS.map((part) => took[part] ?? 0)
  return {
    ...{ token: 1, stage: "prefill", objective: "ttft", lateUs: 100, parts, cause: "queue", bound: null },
    ...changes,
  }
}

export function accountOf(changes: Partial<Account>): Account {
  const none = TIME_PARTS.map(() => 0)
  return {
    ...{ parts: none, toFirst: none, decisions: [], miss: null, answeringUs: null },
    ...{ needs: { ttftUs: 0, tpotUs: 0, maxGapUs: 0 }, ...changes },
  }
}

export function outcomeOf(changes: Partial<Outcome>): Outcome {
  return {
    ...{ app: 0, arrivalUs: 0, startedUs: 0, firstTokenUs: 10_000, finishedUs: 90_000, promptTokens: 100 },
    ...{ cachedTokens: 0, outputTokens: 7, maxGapUs: 1000, ttftUs: 5000, tier: "slo", servedTier: "slo" },
    ...{ preemptions: 0, attained: false, attainedEvery10: false, stages: [], ...changes },
  }
}

export function recordOf(changes: Partial<AnswerRecord>): AnswerRecord {
  const slo = { ttftUs: 5000, ttftSlowdown: 0, tpotUs: 1000, thinkingTpotUs: Infinity, maxGapUs: Infinity }
  return {
    ...{ id: "r", choice: 0, choices: 1, tenant: "default", className: "chat", tier: "slo", slo },
    ...{ thinking: false, arrivedMs: 0, endedMs: 0, end: "stop", error: null, outcome: outcomeOf({}) },
    ...{ expectedWaitMs: null, ratePerSec: 0, ...changes },
  }
}
