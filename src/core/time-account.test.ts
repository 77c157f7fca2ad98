/** Why a token was late: what an account says of it, and what would have kept it. */
import { describe, expect, test } from "vitest"
import { type EngineClock, TIME_PARTS, TimeAccount } from "./time-account.ts"

const clock = (): EngineClock => ({ nowUs: 0, slowUs: 0, failedUs: 0, serverUs: 0 })
const LATE = { token: 1, stage: "prefill", lateUs: 300, paceLateUs: 300, stageTokens: 0, tpotUs: 50 } as const
const share = (changes = {}) => ({
  ...{ serverUs: 0, slowUs: 0, workUs: 0, ownUs: 0, refusedUs: 0, recomputed: 0, ...changes },
})

describe("the cause of a miss", () => {
  function missOf(changes: Parameters<typeof share>[0], waitedUs = 0, before = (_: TimeAccount) => {}) {
    const now = clock()
    const account = new TimeAccount(0, now)
    account.waited(waitedUs)
    before(account)
    now.nowUs = waitedUs + 100
    account.stepped(share(changes), false)
    account.late(LATE)
    return account.closed(400, 0).miss!
  }

  test.each([
    ["queue", {}, 500],
    ["others", { workUs: 900, ownUs: 100 }, 500],
    ["own", { workUs: 900, ownUs: 600 }, 100],
    ["slow", { workUs: 200, ownUs: 100, slowUs: 900 }, 100],
    ["server", { workUs: 200, serverUs: 900 }, 100],
    ["recompute", { workUs: 600, recomputed: 1 }, 100],
  ] as const)("is %s where that took most of the time", (cause, changes, waitedUs) => {
    expect(missOf(changes, waitedUs)).toMatchObject({ cause, bound: null, objective: "ttft" })
  })

  test("is that it was turned down, whatever else took time, unless it came back", () => {
    const down = (account: TimeAccount) => account.demoted("wontFit", "memory")
    expect(missOf({}, 500, down)).toMatchObject({ cause: "turnedDown", bound: "memory" })
    const back = (account: TimeAccount) => {
      down(account)
      account.promoted()
    }
    expect(missOf({}, 500, back)).toMatchObject({ cause: "queue", bound: null })
  })

  test("is that its promise gave way", () => {
    expect(missOf({}, 500, (account) => account.demoted("revoked", "time"))).toMatchObject({
      cause: "revoked",
    })
  })

  test("is what came before where it was too late even alone, or was late already", () => {
    expect(missOf({}, 500, (account) => account.demoted("wontFit", "alone"))).toMatchObject({
      cause: "queue",
    })
    expect(missOf({}, 500, (account) => account.demoted("violated", "time"))).toMatchObject({
      cause: "queue",
    })
  })
})

describe("of later tokens", () => {
  /** Own work and others' until the first token, then only others'. */
  function stream(gaps: boolean) {
    const now = clock()
    const account = new TimeAccount(0, now, { gaps })
    const step = (us: number, ownUs: number) => {
      now.nowUs += us
      account.stepped(share({ workUs: us, ownUs }), now.nowUs > us)
    }
    step(1000, 1000)
    account.produced(true)
    step(60, 50)
    account.produced(false)
    step(200, 50)
    return account
  }
  const othersUs = (parts: readonly number[]) => parts[TIME_PARTS.indexOf("others")]

  test("counts from the first token where the pace was missed", () => {
    const account = stream(false)
    account.late({ ...LATE, token: 3, stage: "answer", lateUs: 60, paceLateUs: 60, stageTokens: 2 })
    const { miss, needs } = account.closed(1000, 200)
    expect(miss).toMatchObject({ objective: "tpot", cause: "others", token: 3 })
    expect(othersUs(miss!.parts)).toBe(160)
    expect(needs).toEqual({ ttftUs: 0, tpotUs: 50 + 60 / 2, maxGapUs: 0 })
  })

  test("counts from the token before where only the gap was too long", () => {
    const account = stream(true)
    account.late({ ...LATE, token: 3, stage: "answer", lateUs: 60, paceLateUs: -5, stageTokens: 2 })
    const { miss, needs } = account.closed(1000, 200)
    expect(miss).toMatchObject({ objective: "maxGap", cause: "others" })
    expect(othersUs(miss!.parts)).toBe(150)
    expect(needs).toEqual({ ttftUs: 0, tpotUs: 0, maxGapUs: 200 })
  })

  test("has the first late token as the miss, and the pace that all of them needed", () => {
    const account = stream(false)
    const late = { ...LATE, stage: "answer" as const, stageTokens: 2, lateUs: 60, paceLateUs: 60 }
    account.late({ ...late, token: 3 })
    account.late({ ...late, token: 4, stageTokens: 3, lateUs: 300, paceLateUs: 300 })
    const { miss, needs } = account.closed(1000, 200)
    expect([miss!.token, needs.tpotUs]).toEqual([3, 150])
  })
})

test("of very many decisions the first and the last are kept", () => {
  const now = clock()
  const account = new TimeAccount(0, now)
  for (let i = 0; i < 100; i++) {
    now.nowUs = i
    if (i % 2 === 0) account.demoted("wontFit", "time")
    else account.promoted()
  }
  const { decisions } = account.closed(0, 0)
  const times = decisions.map(({ afterUs }) => afterUs)
  expect(times).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 92, 93, 94, 95, 96, 97, 98, 99])
})
