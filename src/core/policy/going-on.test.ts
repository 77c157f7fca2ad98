/** Streams that go on here after another replica was lost: the default policy computes them in time for their next token
 * where it can, and says so when it is asked. */
import { describe, expect, test } from "vitest"
import type { Progress } from "../protocol.ts"
import { aboard, Played } from "../replica-testing.ts"
import { progressOf } from "../seen.ts"
import { LIMITS, specOf } from "../testing.ts"

const slo = {
  ttftUs: 1_000_000,
  ttftSlowdown: 0,
  tpotUs: 100_000,
  thinkingTpotUs: 100_000,
  maxGapUs: Infinity,
}
/** 400 tokens of prompt and 100 of output: 55 ms to compute anew (5 ms a step, 0.1 ms a token). */
const spec = specOf(1, { slo, arrivalUs: 0, promptTokens: 400, maxOutputTokens: 200 })

/** At 2 s its next token is due in `slackUs`. */
function begun(slackUs: number): Progress {
  const steps = Array.from({ length: 100 }, () => ({ atUs: 1_000_000, tokens: 1, answeringFrom: -1 }))
  const progress = progressOf(spec, { steps, prefix: [] }, () => 0)
  // They came all at once: it is ahead by as many TPOTs, and its clock is set back by them.
  const backUs = progress.dueUs - 2_000_000 - slackUs
  return { ...progress, dueUs: progress.dueUs - backUs, paceDueUs: progress.paceDueUs - backUs }
}

function replica(): Played {
  const played = new Played({ policy: "slos-serve", limits: { ...LIMITS, minChunkTokens: 16 } })
  played.nowUs = 2_000_000
  return played
}

describe("a stream that goes on here", () => {
  test("is computed before prompts that are due later", () => {
    const played = replica()
    for (const id of [2, 3, 4]) played.arrives(id, { slo, promptTokens: 500 })
    played.arrives(1, spec, begun(120_000))
    const lates = () => played.of("token").flatMap(({ id, lateUs }) => (id === 1 ? lateUs : []))
    for (let batch = played.runs(); lates().length === 0; batch = played.runs()) {
      expect(aboard(batch)).toContain(1)
      played.done(batch)
    }
    expect(lates()[0]).toBeLessThanOrEqual(0)
    expect(played.of("demoted")).toEqual([])
  })

  test("is taken where its next token can be in time, and not where it cannot", () => {
    expect(replica().replica.offer(spec, 2_000_000, begun(120_000))).toBe(true)
    expect(replica().replica.offer(spec, 2_000_000, begun(20_000))).toBe(false)
  })

  test("that its pause has made late goes on as best effort, at once where nothing else is promised", () => {
    const played = replica()
    played.arrives(1, spec, begun(20_000))
    for (let batch = played.runs(); played.of("token").length < 2; batch = played.runs()) played.done(batch)
    expect(played.of("token")[0]!.lateUs).toBeGreaterThan(0)
    expect(played.of("demoted")).toMatchObject([{ id: 1, reason: "wontFit" }])
    expect(played.nowUs).toBeLessThan(2_100_000)
  })
})
