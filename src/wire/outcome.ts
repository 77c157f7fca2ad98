/** How an answer went, as it crosses the wire at its end. */
import { z } from "zod"
import type { MissCause, Outcome } from "../core/protocol.ts"

const count = z.number().int().nonnegative()
/** Times, which may be Infinity where there is no objective. */
const us = z.custom<number>((value) => typeof value === "number" && !Number.isNaN(value), "is not a number")
const tier = z.enum(["slo", "bestEffort"])

const CAUSES = [
  ...(["turnedDown", "revoked", "own", "before", "queue", "others"] as const),
  ...(["recompute", "refusedDrafts", "slow", "failed", "server", "engine"] as const),
] as const satisfies readonly MissCause[]

const stageName = z.enum(["prefill", "thinking", "answer"])
export const demoteReason = z.enum(["wontFit", "violated", "revoked"])
const bound = z.enum(["time", "memory", "alone", "plan", "turn"])
const stage = z.object({
  stage: stageName,
  attained: z.boolean(),
  worstLateUs: us,
  tokens: count,
})
const parts = z.array(us)
/** Where the time of an answer went (core/time-account.ts). */
const account = z.object({
  parts,
  toFirst: parts.nullable(),
  decisions: z.array(
    z.object({
      afterUs: us,
      what: z.enum(["promised", "turnedDown", "cameBack", "preempted"]),
      reason: demoteReason.exactOptional(),
      bound: bound.exactOptional(),
    }),
  ),
  miss: z
    .object({
      token: count,
      stage: stageName,
      objective: z.enum(["ttft", "tpot", "maxGap"]),
      lateUs: us,
      parts,
      cause: z.enum(CAUSES),
      bound: bound.nullable(),
    })
    .nullable(),
  answeringUs: us.nullable(),
  needs: z.object({ ttftUs: us, tpotUs: us, maxGapUs: us }),
})
export const outcome: z.ZodType<Outcome> = z.object({
  app: count,
  arrivalUs: us,
  startedUs: us,
  firstTokenUs: us,
  finishedUs: us,
  promptTokens: count,
  cachedTokens: count,
  outputTokens: count,
  maxGapUs: us,
  ttftUs: us,
  tier,
  servedTier: tier,
  preemptions: count,
  attained: z.boolean(),
  attainedEvery10: z.boolean(),
  stages: z.array(stage),
  account: account.exactOptional(),
})
