/** Shared prefixes from a trace to the plan, to the text that is sent and to the blocks that the scheduler sees. */
import { expect, test } from "vitest"
import { formatPlan, parsePlan } from "./plan.ts"
import { prefixBlocks, prefixTokens } from "./prefix.ts"
import { parseTrace, type Trace } from "./trace.ts"
import { makePlan, type WorkloadOptions } from "./workload.ts"

/** 200 requests; all begin with block 0, pairs share two more, the fourth is their own. */
const lines = Array.from({ length: 200 }, (_, i) =>
  JSON.stringify({
    timestamp: i * 1000,
    input_length: 1700 + (i % 7),
    output_length: 10,
    hash_ids: [0, 1 + 2 * (i >> 1), 2 + 2 * (i >> 1), 1000 + i],
  }),
).join("\n")
const mooncake: Trace = { path: "m.jsonl", rows: parseTrace(lines, "m.jsonl") }

const options: WorkloadOptions = {
  scenario: "chatbot",
  ratePerSec: 1,
  durationMs: 40_000,
  seed: 5,
  scale: 1,
  arrivals: "poisson",
  burstiness: 1,
  maxSequenceTokens: 8192,
  traces: { chat: mooncake },
}

test("a plan keeps what its requests share, and nothing else", () => {
  const plan = makePlan(options)
  const uses = new Map<number, number>()
  for (const { prefix } of plan.requests) for (const id of prefix!.ids) uses.set(id, (uses.get(id) ?? 0) + 1)
  expect(uses.get(0)).toBe(40)
  expect([...uses.values()].sort((a, b) => b - a).slice(1, 3)).toEqual([2, 2])
  expect(Math.min(...uses.values())).toBe(2)
  expect(Math.max(...plan.requests.map(({ prefix }) => prefix!.ids.length))).toBe(3)
  expect(parsePlan(formatPlan(plan), "p")).toEqual(plan)
})

test("scaled and shortened prompts keep whole blocks only", () => {
  const { requests } = makePlan({ ...options, scale: 8, maxSequenceTokens: 150 })
  for (const { prefix, rounds } of requests) {
    expect(prefix!.blockTokens).toBe(64)
    expect(prefix!.ids.length * 64).toBeLessThanOrEqual(rounds[0]!.promptTokens)
  }
})

test("equal prefixes give equal text and equal KV blocks, up to where they part", () => {
  const { requests } = makePlan(options)
  const blocks = requests.map((request, i) => prefixBlocks(request, i, request.rounds[0]!.promptTokens, 16))
  const text = requests.map(({ prefix }) => prefixTokens(prefix!, "n", { from: 0, to: 1000 }).join())
  let pairs = 0
  for (let a = 0; a < requests.length; a++) {
    for (let b = a + 1; b < requests.length; b++) {
      const [mine, yours] = [requests[a]!.prefix!.ids, requests[b]!.prefix!.ids]
      const shared = mine.filter((id, i) => yours[i] === id).length
      expect(blocks[a]!.filter((hash) => blocks[b]!.includes(hash))).toHaveLength(shared * 32)
      expect(text[a] === text[b]).toBe(mine.join() === yours.join())
      if (shared === 3) pairs++
    }
  }
  expect(pairs).toBeGreaterThan(15)
  for (const [i, request] of requests.entries())
    expect(blocks[i]).toHaveLength(Math.floor(request.rounds[0]!.promptTokens / 16))
})

test("later rounds of a session hold all blocks of the earlier ones", () => {
  const request = makePlan({ ...options, scenario: "tools", traces: {} }).requests[3]!
  const first = prefixBlocks(request, 3, 1000, 16)
  expect(prefixBlocks(request, 3, 1500, 16).slice(0, first.length)).toEqual(first)
})

test("raw arrivals take entries as they are; over each other, copies of one share nothing", () => {
  const plan = makePlan({ ...options, arrivals: "raw", ratePerSec: 3 })
  expect(plan.requests).toHaveLength(120)
  expect(plan.header.sources.chat).toContain("arrivals: raw, times of m.jsonl")
  const uses = new Map<number, number>()
  for (const { prefix } of plan.requests) {
    const first = prefix?.ids[0]
    if (first !== undefined) uses.set(first, (uses.get(first) ?? 0) + 1)
  }
  // Three copies or more, each with a system prompt of its own.
  expect(uses.size).toBeGreaterThanOrEqual(3)
})

test("a plan whose prefix is longer than its prompt is refused", () => {
  const text = formatPlan(makePlan(options)).replace(/"promptTokens":\d+/, '"promptTokens":9')
  expect(() => parsePlan(text, "p.jsonl")).toThrow("p.jsonl:2: prefix is longer")
})
