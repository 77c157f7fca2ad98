/** Arguments of requests that an engine has taken already: what is wrong with one leaves the others as they are. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { SLO_ARG_NAMES } from "../serve/slo-args.ts"
import { readSloArguments } from "./slo-arguments.ts"

const classes = defaultSloClasses()
const read = (given: Record<string, unknown>) => readSloArguments(classes, given)

test("all that there is to say", () => {
  const all = read({
    ...{ slo_class: "code", slo_ttft_ms: 400, slo_tpot_ms: 30, slo_max_gap_ms: 90, slo_tier: "slo" },
    ...{ slo_tenant: "ann", slo_session: "s", slo_arrived_unix_ms: 1_795_898_676_617 },
  })
  expect(all).toMatchObject({
    resolved: {
      class: { name: "code" },
      tier: "slo",
      slo: { ttftUs: 400_000, tpotUs: 30_000, maxGapUs: 90_000 },
    },
    ...{ tenant: "ann", session: "s", arrivedUnixMs: 1_795_898_676_617, mistakes: [] },
  })
})

test("nothing said: the default class, the default tenant", () => {
  expect(read({})).toMatchObject({
    resolved: { class: { name: "chat" }, tier: "slo" },
    ...{ tenant: "default", session: null, arrivedUnixMs: null, mistakes: [] },
  })
})

test("best effort is best effort, also in a class that has objectives", () => {
  const { resolved, mistakes } = read({ slo_class: "chat", slo_tier: "best_effort" })
  expect(resolved).toMatchObject({ tier: "bestEffort", slo: { ttftUs: Infinity, tpotUs: Infinity } })
  expect(mistakes).toEqual([])
})

const wrong: [Record<string, unknown>, string, string][] = [
  [{ slo_ttft: 5 }, "slo_ttft", "unknown"],
  [{ slo_class: "chats" }, "slo_class", "invalid"],
  [{ slo_class: 7 }, "slo_class", "invalid"],
  [{ slo_ttft_ms: "500" }, "slo_ttft_ms", "invalid"],
  [{ slo_ttft_ms: 1e12 }, "slo_ttft_ms", "invalid"],
  [{ slo_ttft_ms: Number.NaN }, "slo_ttft_ms", "invalid"],
  [{ slo_max_gap_ms: [5] }, "slo_max_gap_ms", "invalid"],
  [{ slo_ttft_slowdown: 0 }, "slo_ttft_slowdown", "invalid"],
  [{ slo_tier: "gold" }, "slo_tier", "invalid"],
  [{ slo_tenant: "a b" }, "slo_tenant", "invalid"],
  [{ slo_session: "" }, "slo_session", "invalid"],
  [{ slo_arrived_unix_ms: "now" }, "slo_arrived_unix_ms", "invalid"],
]
test.each(wrong)("%j is counted and left out, the others are heeded", (given, argument, kind) => {
  const { resolved, mistakes } = read({ slo_tpot_ms: 40, ...given })
  expect(mistakes).toMatchObject([{ argument, kind }])
  expect(mistakes[0]!.why).not.toBe("")
  expect(resolved).toMatchObject({ tier: "slo", slo: { tpotUs: 40_000 } })
})

test("contradictions: one of the two goes, and is counted", () => {
  expect(read({ slo_ttft_ms: 500, slo_ttft_slowdown: 5 })).toMatchObject({
    resolved: { slo: { ttftUs: 500_000, ttftSlowdown: 0 } },
    mistakes: [{ argument: "slo_ttft_slowdown" }],
  })
  expect(read({ slo_tier: "slo", slo_class: "best_effort" })).toMatchObject({
    resolved: { tier: "bestEffort" },
    mistakes: [{ argument: "slo_tier" }],
  })
})

test("a name of any length is one mistake", () => {
  const { mistakes, resolved } = read({ [`slo_${"x".repeat(1000)}`]: 1, slo_tpot_ms: 40 })
  expect(mistakes).toHaveLength(1)
  expect(mistakes[0]!.argument.length).toBeLessThanOrEqual(100)
  expect(resolved.slo.tpotUs).toBe(40_000)
})

test("whatever is said, the request has an SLO, and each argument is a mistake at most once", () => {
  const key = fc.oneof(
    fc.constantFrom(...SLO_ARG_NAMES),
    fc.string().map((text) => `slo_${text}`),
  )
  fc.assert(
    fc.property(fc.dictionary(key, fc.anything()), (given) => {
      const { resolved, mistakes } = read(given)
      expect(classes.all).toContain(resolved.class)
      expect(mistakes.length).toBeLessThanOrEqual(Object.keys(given).length)
    }),
    { numRuns: 300 },
  )
})
