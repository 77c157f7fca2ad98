/** Requests that enter a replica, and those on their way to another one. */
import { describe, expect, test } from "vitest"
import { movedFrom, startRequest } from "./moved.ts"
import { liveOf, specOf } from "./testing.ts"

const HOUR_US = 3_600_000_000
const slo = { ttftUs: 500_000, ttftSlowdown: 0, maxGapUs: Infinity, tpotUs: 60_000, thinkingTpotUs: 30_000 }
const noSlowdown = () => {
  throw new Error("not asked for")
}

describe("a request that starts afresh", () => {
  test("is due a TTFT after it reached the server, or after now", () => {
    expect(startRequest(specOf(1, { slo }), 7_000, 4, noSlowdown)).toMatchObject({
      ...{ arrivalUs: 7_000, deadlineUs: 507_000, order: 4 },
    })
    const waited = startRequest(specOf(1, { slo, arrivalUs: 2_000 }), 7_000, 4, noSlowdown)
    expect(waited).toMatchObject({ arrivalUs: 2_000, deadlineUs: 502_000 })
  })

  test("is due after so many prefill times where its objective is a slowdown", () => {
    const asked = specOf(1, { promptTokens: 40, slo: { ...slo, ttftSlowdown: 3 } })
    expect(startRequest(asked, 0, 0, (tokens) => tokens * 1_000).deadlineUs).toBe(120_000)
    // Never less than 100 ms.
    expect(startRequest(asked, 0, 0, (tokens) => tokens * 100).deadlineUs).toBe(100_000)
  })

  test("without objectives is due in an hour a token, so that arithmetic stays finite", () => {
    const none = {
      ttftUs: Infinity,
      ttftSlowdown: 0,
      maxGapUs: Infinity,
      tpotUs: Infinity,
      thinkingTpotUs: Infinity,
    }
    const request = startRequest(specOf(1, { slo: none }), 0, 0, noSlowdown)
    expect(request.deadlineUs).toBe(HOUR_US)
    expect(request.spec.slo).toMatchObject({ tpotUs: HOUR_US, thinkingTpotUs: HOUR_US })
    expect(startRequest(specOf(1, { slo }), 0, 0, noSlowdown).spec.slo).toEqual(slo)
  })
})

describe("a request that moves", () => {
  test("keeps its arrival, its deadline and how far it has come", () => {
    const request = liveOf(1, { slo }, 100_000)
    request.emit(1, -1, 400_000, () => {})
    const { request: spec, progress } = movedFrom(request)
    // A slowdown is not asked for again: the deadline was set where it first arrived.
    const again = startRequest(
      { ...spec, slo: { ...slo, ttftSlowdown: 9 } },
      900_000,
      7,
      noSlowdown,
      progress,
    )
    expect(again).toMatchObject({ arrivalUs: 100_000, deadlineUs: 600_000, output: 1, firstTokenUs: 400_000 })
    expect(again.dueUs).toBe(660_000)
  })

  test("comes without a promise, in the tier that it asked for", () => {
    const request = liveOf(1)
    request.admitted = true
    expect(movedFrom(request).progress).toMatchObject({ tier: "slo", admitted: false })
    request.admitted = false
    request.tier = "bestEffort"
    expect(movedFrom(request).progress.tier).toBe("slo")
  })

  test("was preempted once more if it had begun", () => {
    const request = liveOf(1)
    request.preemptions = 2
    expect(movedFrom(request).progress.preemptions).toBe(2)
    request.computed = 1
    expect(movedFrom(request).progress.preemptions).toBe(3)
  })
})
