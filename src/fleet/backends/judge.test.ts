/** What a gateway can say of where the time went at an engine of another kind: when it was held, and when the engine had it. */
import { describe, expect, test } from "vitest"
import type { RequestSpec } from "../../core/protocol.ts"
import { specOf } from "../../core/testing.ts"
import { TIME_PARTS } from "../../core/time-account.ts"
import { auditAccount } from "../../sim/time-audit.ts"
import { Judge } from "./judge.ts"

function judging(changes: Partial<RequestSpec> = {}): Judge {
  return new Judge(
    specOf(1, { arrivalUs: 400, ...changes }),
    1000,
    () => 0,
    () => {},
  )
}
const partsOf = (parts: readonly number[] | null | undefined) =>
  Object.fromEntries(TIME_PARTS.map((part, i) => [part, parts![i]!]).filter(([, us]) => us !== 0))

describe("a request at another engine", () => {
  test("came, was held, and was the engine's until its end", () => {
    const judge = judging()
    judge.sent(3000)
    judge.tokens(1, true, 9000)
    judge.tokens(2, true, 11_000)
    const outcome = judge.end("stop", null, 12_000)
    auditAccount(outcome, "it")
    expect(partsOf(outcome.account!.parts)).toEqual({ before: 600, queue: 2000, engine: 9000 })
    expect(partsOf(outcome.account!.toFirst)).toEqual({ before: 600, queue: 2000, engine: 6000 })
    expect(outcome.account!.decisions).toEqual([{ afterUs: 8600, what: "promised" }])
  })

  test("that was held until its end was never the engine's", () => {
    const outcome = judging().end("cancelled", null, 5000)
    expect(partsOf(outcome.account!.parts)).toEqual({ before: 600, queue: 4000 })
  })

  test.each([
    [1000, "engine"],
    [700_000, "queue"],
  ])("that missed names where most of the time went: sent after %i", (sentUs, cause) => {
    const judge = judging()
    judge.sent(sentUs)
    judge.tokens(1, true, 1_200_000)
    const { account } = judge.end("stop", null, 1_300_000)
    expect(account!.miss).toMatchObject({ objective: "ttft", cause, lateUs: 199_600 })
    expect(account!.needs.ttftUs).toBe(1_199_600)
  })

  test("that was turned down says so", () => {
    const judge = judging()
    judge.turnedDown(2000)
    judge.sent(3000)
    judge.tokens(1, true, 1_200_000)
    const { account } = judge.end("stop", null, 1_300_000)
    expect(account!.miss).toMatchObject({ cause: "turnedDown", bound: "time" })
  })

  test("that has begun elsewhere says nothing of how its first token was there", () => {
    const judge = judging()
    judge.replay(2, 800)
    judge.sent(1500)
    judge.tokens(1, true, 2500)
    const outcome = judge.end("stop", null, 3000)
    auditAccount(outcome, "it")
    expect(outcome.account!.toFirst).toBeNull()
    expect(partsOf(outcome.account!.parts)).toEqual({ before: 600, queue: 500, engine: 1500 })
  })
})
