/** Gateways of one address tell each other what they have at an engine. */
import { expect, test } from "vitest"
import { specOf } from "../../core/testing.ts"
import { ENGINE_RULES, type EngineRules } from "../engine-rules.ts"
import { NOTHING_HELD } from "../sent.ts"
import { Twin, type TwinSpec } from "../twin.ts"
import { type LoadWord, SharedLoad } from "./shared-load.ts"

/** Each with a clock of its own. */
function gateways(count: number, clocksUs: readonly number[] = [], rules: EngineRules = ENGINE_RULES.vllm) {
  const waiting: (() => void)[] = []
  const saw: object[] = []
  const heard: [number, string, boolean][] = []
  const all = Array.from({ length: count }, (_, index) => {
    const twin = new Twin({ rules: { ...rules, maxSequences: 4 } })
    const clockUs = clocksUs[index] ?? 0
    const tellSoon = (words: () => unknown) => {
      waiting.push(() => {
        const told = structuredClone(words()) as LoadWord[]
        for (const [to, other] of all.entries())
          if (to !== index) other.load.hear(told, index, nowUs - other.clockUs)
      })
    }
    const load = new SharedLoad({
      ...{ twin, tellSoon, clockUs, saw: (seen: object) => saw.push(seen) },
      sentElsewhere: ({ tier }, forced) => heard.push([index, tier, forced]),
    })
    return { twin, load, clockUs }
  })
  let nowUs = 1_000_000
  const later = (us: number) => {
    nowUs += us
    for (const tell of waiting.splice(0)) tell()
  }
  const now = (index: number) => nowUs - (clocksUs[index] ?? 0)
  return { all, later, now, saw, heard }
}

const promise = (changes: Partial<TwinSpec> = {}): TwinSpec => ({
  ...specOf(1, { promptTokens: 500, arrivalUs: 1_000_000 }),
  ...changes,
})

/** How fast the engine is. */
function knowsIts(twin: Twin): void {
  for (let i = 0; i < 200; i++)
    twin.fit.observe({ entries: 0, steps: 10, tokens: 1000, sequences: 10, pairs: 0, us: 500_000 }, 1000)
}

test("each knows the requests of all from their sending to their end", () => {
  const { all, later, now } = gateways(3)
  const [one, other, third] = all
  for (const [at, gateway] of [one!, other!].entries()) {
    gateway.twin.sent(1, promise(), now(at))
    gateway.load.sent(1, promise(), false)
  }
  later(5000)
  expect(all.map(({ twin }) => twin.inFlight)).toEqual([2, 2, 2])
  one!.twin.tokens(1, 1, now(0))
  one!.load.tokens(1, 1)
  later(5000)
  expect(third!.twin.snapshot(now(2))).toMatchObject({ running: 1, waiting: 1 })
  one!.twin.ended(1, now(0))
  one!.load.ended(1, true)
  other!.twin.ended(1, now(1))
  other!.load.ended(1, false)
  later(5000)
  expect(all.map(({ twin }) => twin.inFlight)).toEqual([0, 0, 0])
})

test("what others have in /metrics is less by what they tell", () => {
  const { all, later, now } = gateways(2)
  const [one, other] = all
  one!.twin.metrics({ running: 1, waiting: 0 }, now(0))
  expect(one!.twin.snapshot(now(0)).running).toBe(1)
  other!.load.sent(1, promise(), false)
  later(5000)
  one!.twin.metrics({ running: 1, waiting: 0 }, now(0))
  expect(one!.twin.snapshot(now(0))).toMatchObject({ running: 0, waiting: 1 })
})

test("of one that is gone nothing is left, of another of the same engine all is", () => {
  const { all, later, now } = gateways(3)
  for (const at of [1, 2]) {
    for (let id = 1; id <= 5; id++) all[at]!.load.sent(id, promise(), false)
    all[at]!.load.held(6, promise(), 2_000_000)
  }
  later(5000)
  const [one] = all
  expect([one!.twin.inFlight, one!.load.heldElsewhere]).toEqual([10, 2])
  one!.load.left(1, now(0))
  expect([one!.twin.inFlight, one!.load.heldElsewhere]).toEqual([5, 1])
  // Its last words are on their way still.
  one!.load.hear([{ type: "tokens", id: 3, tokens: 1 }], 1, now(0))
  one!.load.hear([{ type: "ended", id: 3, stopped: true }], 1, now(0))
  expect(one!.twin.inFlight).toBe(5)
})

test("what is held elsewhere goes before or after by its deadline, whatever the clocks; once sent it is held no more", () => {
  const { all, later } = gateways(2, [0, 700_000_000])
  const [one, other] = all
  // On a clock that began so much later.
  const due = (us: number) => us - 700_000_000
  other!.load.held(1, promise({ promptTokens: 111 }), due(1_500_000))
  other!.load.held(2, promise({ promptTokens: 222 }), due(2_500_000))
  other!.load.held(3, { ...promise(), tier: "bestEffort" }, Infinity)
  later(5000)
  const tokens = (specs: readonly TwinSpec[]) => specs.map(({ promptTokens }) => promptTokens)
  const { before, after } = one!.load.around(2_000_000, NOTHING_HELD)
  expect([tokens(before), tokens(after)]).toEqual([[111], [222]])
  other!.load.sent(1, promise({ arrivalUs: due(1_000_000) }), false)
  other!.load.ended(2, false)
  later(5000)
  expect(one!.load.heldElsewhere).toBe(0)
  expect(one!.twin.inFlight).toBe(1)
})

test("held and sent in one moment is told once; tokens of one moment are, too", () => {
  const told: LoadWord[] = []
  let take = () => {}
  const load = new SharedLoad({
    ...{ twin: new Twin({ rules: ENGINE_RULES.vllm }), clockUs: 0, saw: () => {}, sentElsewhere: () => {} },
    tellSoon: (words) => {
      take = () => told.push(...(words() as LoadWord[]))
    },
  })
  load.held(1, promise(), 2_000_000)
  load.sent(1, promise(), false)
  load.held(2, promise(), 2_000_000)
  load.ended(2, false)
  for (let i = 0; i < 5; i++) load.tokens(1, 2)
  take()
  expect(told.map(({ type }) => type)).toEqual(["sent", "tokens"])
  expect(told[1]).toMatchObject({ tokens: 10 })
  load.tokens(1, 1)
  load.ended(1, true)
  take()
  expect(told.slice(2).map(({ type }) => type)).toEqual(["tokens", "ended"])
})

test("an offer is answered with the prompts of others before it", () => {
  const { all, later, now } = gateways(2)
  const [one, other] = all
  // Both know how fast the engine is.
  for (const { twin } of all) knowsIts(twin)
  expect(one!.twin.fit.confident).toBe(true)
  const patient = { ...promise().slo, ttftUs: 60_000_000, tpotUs: 10_000_000 }
  const asked = promise({ promptTokens: 4000, arrivalUs: now(0), slo: patient })
  const aloneUs = one!.twin.offer(asked, now(0)).firstTokenUs - now(0)
  const soon = { ...asked, slo: { ...patient, ttftUs: 2 * aloneUs } }
  expect(one!.twin.offer(soon, now(0)).takes).toBe(true)
  for (let id = 1; id <= 3; id++) other!.load.sent(id, asked, false)
  later(0)
  expect(one!.twin.offer({ ...soon }, now(0)).takes).toBe(false)
  expect(one!.twin.offer({ ...asked }, now(0)).takes).toBe(true)
})

test("what is sent is told once to each other, with whether it was forced out", () => {
  const { all, later, heard } = gateways(3)
  all[1]!.load.sent(1, promise(), false)
  all[1]!.load.sent(2, { ...promise(), tier: "bestEffort" }, true)
  later(5000)
  const told = (to: number) => [
    [to, "slo", false],
    [to, "bestEffort", true],
  ]
  expect(heard).toEqual([...told(0), ...told(2)])
})

test("no offer is answered so that a first token would be late that another promised", () => {
  const { all, later, now } = gateways(2, [], ENGINE_RULES["vllm-priority"])
  const [one, other] = all
  for (const { twin } of all) knowsIts(twin)
  const due = (ttftUs: number) => ({ ...promise().slo, ttftUs, tpotUs: 10_000_000 })
  const asked = promise({ promptTokens: 4000, arrivalUs: now(0), slo: due(60_000_000) })
  const aloneUs = one!.twin.offer(asked, now(0)).firstTokenUs - now(0)
  // The engine is busy; what waits there is in time by itself, but not after the other, which is due before it.
  other!.load.sent(1, { ...asked, tier: "bestEffort" }, false)
  later(0)
  later(aloneUs / 2)
  const theirs = { ...asked, promptTokens: 16_000, arrivalUs: now(0), slo: due(4.8 * aloneUs) }
  other!.load.sent(2, theirs, false)
  later(0)
  const next = { ...asked, arrivalUs: now(0), slo: due(3.5 * aloneUs) }
  expect(one!.twin.offer(next, now(0))).toMatchObject({ takes: false, keepsOthers: false })
  other!.load.ended(2, false)
  later(0)
  expect(one!.twin.offer({ ...next }, now(0))).toMatchObject({ takes: true, keepsOthers: true })
})
