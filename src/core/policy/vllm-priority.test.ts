/** vLLM with first-token deadlines as priorities: which requests start first, and which give way when KV is
 * full. */
import { expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import type { Effect, EngineLimits } from "../protocol.ts"
import { Played } from "../replica-testing.ts"
import { COST, LIMITS, specOf } from "../testing.ts"
import type { PolicyName } from "./index.ts"

/** A request of 100 prompt tokens whose first token is due after `ttftMs`. */
function request(id: number, atMs: number, ttftMs: number, outputTokens: number): SimRequest {
  const slo = { ttftUs: ttftMs * 1000, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity }
  const spec = specOf(id, { promptTokens: 100, maxOutputTokens: outputTokens, slo })
  return { atUs: atMs * 1000, outputTokens, spec }
}

function effectsOf(policy: PolicyName, requests: readonly SimRequest[], limits: EngineLimits): Effect[] {
  const effects: Effect[] = []
  const options = { tokenBudget: 100 }
  simulate({
    config: { limits, cost: COST, policy, apps: 1, options },
    requests,
    check: true,
    onEffect: (effect) => effects.push(effect),
  })
  return effects
}

const firstTokens = (effects: readonly Effect[]) => [
  ...new Set(effects.flatMap((effect) => (effect.type === "token" ? [effect.id] : []))),
]
const preempted = (effects: readonly Effect[]) =>
  effects.flatMap((effect) => (effect.type === "preempted" ? [effect.id] : []))

const limits: EngineLimits = { ...LIMITS, unifiedKv: true, minChunkTokens: 1 }

test("waiting requests start by first-token deadline, not by arrival; what has begun goes on", () => {
  // A prefill of one budget each: 0 runs when the others come.
  const requests = [
    request(0, 0, 9000, 1),
    request(1, 1, 5000, 1),
    request(2, 2, 500, 1),
    request(3, 3, 900, 1),
  ]
  expect(firstTokens(effectsOf("vllm-priority", requests, limits))).toEqual([0, 2, 3, 1])
  expect(firstTokens(effectsOf("vllm", requests, limits))).toEqual([0, 1, 2, 3])
})

test("when KV is full the latest deadline gives way, is recomputed and finishes", () => {
  // Two fit with their prompts, not with their answers.
  const tight = { ...limits, kvTokens: 256, contextTokens: 256 }
  const requests = [request(0, 0, 9000, 80), request(1, 1, 500, 80)]
  const effects = effectsOf("vllm-priority", requests, tight)
  expect(new Set(preempted(effects))).toEqual(new Set([0]))
  expect(effects.filter(({ type }) => type === "finished")).toHaveLength(2)
  // First come, first served gives up the later arrival, whatever its deadline.
  expect(new Set(preempted(effectsOf("vllm", requests, tight)))).toEqual(new Set([1]))
})

/** Played with a least chunk of one token. */
const played = (options: object, changes: Partial<EngineLimits> = {}) =>
  new Played({ policy: "vllm-priority", options, limits: { ...limits, ...changes } })
const slo = (ttftMs: number) => ({
  ttftUs: ttftMs * 1000,
  ttftSlowdown: 0,
  maxGapUs: Infinity,
  tpotUs: 1e6,
  thinkingTpotUs: 1e6,
})
/** [id, tokens] of each item of the next batch, in order. */
const shapeOf = (all: Played) => all.step().items.map(({ id, tokens }) => [id, tokens])

test("a batch: what runs, by deadline, each what it owes; then waiting prompts by deadline, within the budget", () => {
  const all = played({ tokenBudget: 50 })
  all.arrives(1, { promptTokens: 40, slo: slo(900) })
  all.arrives(2, { promptTokens: 60, slo: slo(500) })
  expect(shapeOf(all)).toEqual([[2, 50]])
  // The prompt that has begun goes on; the budget's rest is for the other.
  expect(shapeOf(all)).toEqual([
    [2, 10],
    [1, 40],
  ])
  all.arrives(3, { promptTokens: 100, slo: slo(100) })
  all.arrives(4, { promptTokens: 100, slo: slo(50) })
  expect(shapeOf(all)).toEqual([
    [2, 1],
    [1, 1],
    [4, 48],
  ])
  // Its chunk leaves a token for each decode after it.
  expect(shapeOf(all)).toEqual([
    [4, 48],
    [2, 1],
    [1, 1],
  ])
})

test("equal deadlines go by arrival", () => {
  const all = played({ tokenBudget: 50 })
  for (const id of [5, 3, 4]) all.arrives(id, { promptTokens: 20, slo: slo(500) })
  expect(shapeOf(all)).toEqual([
    [5, 20],
    [3, 20],
    [4, 10],
  ])
})

test("the budget is filled to the last token, and a chunk has what decodes before it leave", () => {
  const all = played({ tokenBudget: 50 })
  all.arrives(1, { promptTokens: 10, slo: slo(100) })
  all.arrives(2, { promptTokens: 100, slo: slo(900) })
  expect(shapeOf(all).at(-1)).toEqual([2, 40])
  expect(shapeOf(all)).toEqual([
    [1, 1],
    [2, 49],
  ])
  const least = played({ tokenBudget: 2 })
  least.arrives(1, { promptTokens: 1, slo: slo(100) })
  least.arrives(2, { promptTokens: 100, slo: slo(900) })
  for (let i = 0; i < 2; i++)
    expect(shapeOf(least)).toEqual([
      [1, 1],
      [2, 1],
    ])
})

test("goes on where a least chunk is more than the budget", () => {
  const all = played({ tokenBudget: 50 }, { minChunkTokens: 64 })
  for (const id of [1, 2]) all.arrives(id, { promptTokens: 200, slo: slo(500) })
  expect(shapeOf(all)).toEqual([[1, 65]])
})

test("drafts a fixed number of tokens, as far as every decode still finds room; a chunk leaves room for them", () => {
  const drafts = (all: Played) => all.step().items.map(({ id, tokens, draft }) => [id, tokens, draft])
  const wide = played({ fixedDraft: 3, tokenBudget: 20 })
  for (const id of [1, 2]) wide.arrives(id, { promptTokens: 10, slo: slo(500) })
  wide.step()
  expect(drafts(wide)).toEqual([
    [1, 1, 3],
    [2, 1, 3],
  ])
  wide.arrives(3, { promptTokens: 100, slo: slo(100) })
  expect(drafts(wide).at(-1)).toEqual([3, 12, 0])
  expect(drafts(wide)).toEqual([
    [3, 12, 0],
    [1, 1, 3],
    [2, 1, 3],
  ])
  const narrow = played({ fixedDraft: 3 }, { maxBatchTokens: 6 })
  for (const id of [1, 2, 3]) narrow.arrives(id, { promptTokens: 2, slo: slo(500) })
  narrow.step()
  expect(drafts(narrow)).toEqual([
    [1, 1, 3],
    [2, 1, 0],
    [3, 1, 0],
  ])
})

test("where one gave way no request is started in the same step: it would take the KV that was made free", () => {
  const all = played({}, { kvTokens: 128, contextTokens: 128 })
  all.arrives(1, { promptTokens: 60, slo: slo(500), maxOutputTokens: 60 })
  all.arrives(2, { promptTokens: 60, slo: slo(900), maxOutputTokens: 60 })
  all.step()
  all.arrives(3, { promptTokens: 10, slo: slo(100), maxOutputTokens: 2 })
  // Both of them fill four blocks; then the fifth is wanted.
  for (let i = 0; i < 4; i++) expect(all.step().items).toHaveLength(2)
  expect(shapeOf(all)).toEqual([[1, 1]])
  expect(all.of("preempted").map(({ id }) => id)).toEqual([2])
  // The next one starts it, and not what gave way: there is no room for both.
  expect(shapeOf(all).map(([id]) => id)).toEqual([1, 3, 2])
})

test("a request never takes KV from one of better priority, and gives up its turn instead", () => {
  const all = played({}, { kvTokens: 128, contextTokens: 128 })
  all.arrives(1, { promptTokens: 60, slo: slo(900), maxOutputTokens: 60 })
  all.arrives(2, { promptTokens: 50, slo: slo(500), maxOutputTokens: 60 })
  all.step()
  // The one with the later deadline needs its fifth block first.
  for (let i = 0; i < 4; i++) all.step()
  expect(shapeOf(all)).toEqual([[2, 1]])
  expect(all.of("preempted")).toEqual([])
})
