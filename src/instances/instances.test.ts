/** Instances are read strictly, plans hold token by token, and the checker sees every way to cheat. */
import { describe, expect, test } from "vitest"
import { POLICIES } from "../core/policy/index.ts"
import { checkPlan } from "./check.ts"
import { planForward } from "./forward.ts"
import { type Instance, readInstance } from "./instance.ts"
import { fromRanges, type Plan, toRanges } from "./schedule.ts"
import { Solver } from "./solve.ts"

const clockUs = () => performance.now() * 1000

function request(id: number, changes: Partial<Instance["requests"][number]> = {}) {
  return {
    ...{ id, new: true, tier: 0, ddl: 10.5, remaining: 800, prompt: 800, computed: 0, max_tokens: 100 },
    ...{ profit: 1, mem: 60 },
    ...changes,
  }
}
const decoding = { new: false, ddl: 10, remaining: 0, computed: 850 }

function instanceOf(changes: Partial<Instance> = {}): Instance {
  const value = {
    ...{ id: "t", now: 10, tpots: [0.05, 0.1], hw: [7e-5, 0, 0.025, 7.5e-5, 0, 0.003], hw_terms: 3 },
    ...{ spec: { alpha: 0.7, max_sd: 4 }, block_size: 16, mem_free: 150 },
    requests: [
      request(0, decoding),
      request(1, { ...decoding, tier: 1 }),
      request(2),
      request(3, { tier: 1, ddl: 10.9, remaining: 1200, prompt: 1200, profit: 3 }),
      request(4, { ddl: 10.6, profit: 0.5 }),
    ],
    ...changes,
  }
  return readInstance(JSON.stringify(value), "test", 1)
}

describe("reading instances", () => {
  const good = instanceOf()
  test.each([
    ["no JSON", "{", /^f, line 7: not JSON .*must be one instance/],
    ["a missing field", JSON.stringify({ ...good, now: undefined }), /^f, line 7: now: .*correct that field/],
    [
      "an unknown tier",
      JSON.stringify({ ...good, requests: [request(0, { tier: 2 })] }),
      /requests\.0\.tier/,
    ],
    [
      "an id twice",
      JSON.stringify({ ...good, requests: [request(0), request(0)] }),
      /requests\.1\.id.*twice/,
    ],
    ["descending tpots", JSON.stringify({ ...good, tpots: [0.1, 0.05] }), /tpots\.1/],
    ["hardware cut short", JSON.stringify({ ...good, hw: [1, 2, 3, 4] }), /hw: needs a multiple/],
    [
      "a negative prompt",
      JSON.stringify({ ...good, requests: [request(0, { remaining: -1 })] }),
      /remaining/,
    ],
  ])("names file, line and remedy for %s", (_, line, message) => {
    expect(() => readInstance(line, "f", 7)).toThrow(message)
  })

  test("ids as ranges, there and back", () => {
    expect(toRanges([7, 2, 0, 1, 3])).toBe("0-3,7")
    expect(fromRanges("0-3,7")).toEqual([0, 1, 2, 3, 7])
  })
})

describe.each(["slos-serve-paper", "slos-serve"] as const)("%s", (policy) => {
  test.each([false, true])("its plans hold, speculation %s", (speculate) => {
    const instance = instanceOf()
    const plan = new Solver({ policy, speculate, margin: 0 }, clockUs).solve(instance)
    expect(plan).toMatchObject({ feasible: true, profit: 4, accepted: [2, 3] })
    expect(plan.us).toBeGreaterThan(0)
    const verdict = checkPlan(instance, plan)
    expect(verdict.violations).toEqual([])
    if (!speculate || policy === "slos-serve") expect(verdict.lateTokens).toBe(0)
  })

  test.each([
    ["time", { remaining: 1200, prompt: 1200, mem: 1 }, { remaining: 850, prompt: 850, mem: 1 }],
    ["memory", { remaining: 10, mem: 90 }, { remaining: 10, mem: 75 }],
  ])("two that are worth more together than one worth more for its %s", (_, large, small) => {
    const requests = [
      request(0, { ...large, ddl: 10.15, profit: 7.5 }),
      ...[1, 2].map((id) => request(id, { ...small, ddl: 10.15, profit: 4.7 })),
    ]
    const plan = new Solver({ policy, speculate: false, margin: 0 }, clockUs).solve(instanceOf({ requests }))
    expect(plan.accepted).toEqual([1, 2])
  })

  test("says when not even the running ones can be kept", () => {
    const instance = instanceOf({ requests: [request(0, { new: false, ddl: 10.02 })] })
    const plan = new Solver({ policy, speculate: false, margin: 0 }, clockUs).solve(instance)
    expect(plan).toMatchObject({ feasible: false, accepted: [], batches: [] })
  })
})

test("a policy run forward is the same every time", () => {
  const run = () =>
    planForward(instanceOf(), POLICIES["slos-serve"], { speculate: false, margin: 0 }, () => 0)
  expect(run()).toEqual(run())
})

describe("the checker", () => {
  const instance = instanceOf()
  const plan = new Solver({ policy: "slos-serve-paper", speculate: false, margin: 0 }, clockUs).solve(
    instance,
  )
  /** A copy with something changed. */
  const tampered = (change: (plan: Plan) => void) => {
    const copy = structuredClone(plan)
    change(copy)
    return checkPlan(instance, copy).violations.join("; ")
  }
  const firstPrefill = (copy: Plan) => copy.batches.find((batch) => batch.p.length > 0)!

  test("accepts the plan as it is", () => expect(tampered(() => {})).toBe(""))
  test.each<[string, RegExp, (copy: Plan) => void]>([
    ["a batch too short", /batch 0 takes .* not/, (copy) => (copy.batches[0]!.t /= 2)],
    ["a batch too long", /late|behind/, (copy) => (copy.batches[0]!.t += 0.2)],
    ["prefill beyond the prompt", /beyond its prompt/, (copy) => (firstPrefill(copy).p[0]![1] += 900)],
    ["prefill left out", /never prefilled|by its deadline/, (copy) => firstPrefill(copy).p.shift()],
    ["prefill of no tokens", /prefill tokens/, (copy) => (firstPrefill(copy).p[0]![1] = 0)],
    [
      "a decode left out",
      /falls behind/,
      (copy) => copy.batches.splice(0, 99, ...copy.batches.map((batch) => ({ ...batch, d: {} }))),
    ],
    ["a decode too early", /before its prefill/, (copy) => (copy.batches[0]!.d = { 1: "0-2" })],
    ["a request twice", /in it twice/, (copy) => (copy.batches[0]!.d = { 1: "0-1,0" })],
    ["a stranger", /neither running nor accepted/, (copy) => (copy.batches[0]!.d = { 1: "0-1,4" })],
    ["too much speculation", /tokens verified/, (copy) => (copy.batches[0]!.d = { 9: "0-1" })],
    ["a wrong profit", /profit is 4/, (copy) => (copy.profit = 5)],
    ["an id that is not there", /not in the instance/, (copy) => copy.accepted.push(99)],
    ["a running id accepted", /running request is listed/, (copy) => copy.accepted.push(0)],
    ["an id accepted twice", /twice/, (copy) => copy.accepted.push(2)],
    ["more memory than there is", /blocks of 150/, (copy) => copy.accepted.push(4)],
    ["a jump out of the schedule", /next is/, (copy) => (copy.batches.at(-1)!.next = -999)],
    ["a jump forward", /next is/, (copy) => (copy.batches.at(-1)!.next = 1)],
    ["a jump in the middle", /belongs on the last/, (copy) => (copy.batches[0]!.next = -1)],
    ["a loop with prefill", /prefill in it/, (copy) => (copy.batches.at(-1)!.next = -copy.batches.length)],
    [
      "a loop that is too slow",
      /falls behind|late/,
      (copy) => {
        for (const batch of copy.batches.slice(-2)) batch.t = 0.06
      },
    ],
  ])("refuses %s", (_, message, change) => {
    expect(tampered(change)).toMatch(message)
  })
})
