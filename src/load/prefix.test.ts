/** Shared prefixes from a trace to the plan, to the text that is sent and to the blocks that the scheduler sees. */
import * as fc from "fast-check"
import { expect, test } from "vitest"
import { formatPlan, type PlannedRequest, parsePlan } from "./plan.ts"
import { prefixBlocks, prefixTokens, scaledPrefix, shareWithin } from "./prefix.ts"
import { promptOf } from "./replay.ts"
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
const mooncake: Trace = parseTrace(lines, "m.jsonl")

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

test("blocks are divided as the prompts are", () => {
  const { requests } = makePlan({ ...options, scale: 100 })
  for (const { prefix, rounds } of requests) {
    expect(prefix!.blockTokens).toBe(5.12)
    expect((prefix!.ids.length - 1) * 5.12).toBeLessThan(rounds[0]!.promptTokens)
  }
})

test("equal prefixes give equal text and equal KV blocks, up to where they part", () => {
  const { requests } = makePlan(options)
  const blocks = requests.map((request, i) => prefixBlocks(request, i, request.rounds[0]!.promptTokens, 16))
  const text = requests.map(({ prefix, rounds }) =>
    prefixTokens(prefix!, rounds[0]!.promptTokens, "n", { from: 0, to: 1000 }).join(),
  )
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

/** A prompt: which way it goes at each block, and its tokens. */
const prompts = fc.array(
  fc.record({
    turns: fc.array(fc.integer({ min: 0, max: 1 }), { maxLength: 6 }),
    tail: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
  { minLength: 2, maxLength: 6 },
)

test("prompts share exactly the KV blocks within what they have in common, at any scale and block sizes", () => {
  const range = { from: 0, to: 2 ** 31 }
  fc.assert(
    fc.property(
      prompts,
      fc.constantFrom(3, 16, 512),
      fc.constantFrom(1, 3, 8, 40, 100, 1000, 0.7),
      fc.constantFrom(1, 5, 16, 64),
      (drawn, traceBlock, scale, kvBlock) => {
        const rows = drawn.map(({ turns, tail }) => {
          const input = Math.max(1, Math.ceil((turns.length - tail) * traceBlock))
          return { input, turns: turns.slice(0, Math.ceil(input / traceBlock)) }
        })
        const requests = rows.map(({ input, turns }): PlannedRequest => {
          const promptTokens = Math.max(1, Math.round(input / scale))
          const ids = turns.map((_, k) => Number.parseInt(`1${turns.slice(0, k + 1).join("")}`, 2))
          const prefix = scaledPrefix({ blockTokens: traceBlock, ids }, scale, promptTokens)
          const round = { class: "chat", promptTokens, outputTokens: 40, thinkingTokens: 0, delayMs: 0 }
          return {
            atMs: 0,
            app: "chat",
            session: "s",
            rounds: [round, round],
            ...(ids.length > 0 && { prefix }),
          }
        })
        shareWithin(requests.map((request) => ({ request, space: "" })))
        const after = (request: PlannedRequest) => request.rounds[0]!.promptTokens + 40
        const hashes = requests.map((request, i) => prefixBlocks(request, i, after(request), kvBlock))
        const texts = requests.map((request, i) => promptOf(request, i, 0, { nonce: "n", tokenRange: range }))
        for (let a = 0; a < rows.length; a++) {
          for (let b = a + 1; b < rows.length; b++) {
            const [mine, yours] = [rows[a]!.turns, rows[b]!.turns]
            const parted = mine.findIndex((turn, k) => yours[k] !== turn)
            const blocks = parted < 0 ? mine.length : parted
            const most = Math.min(texts[a]!.length, texts[b]!.length)
            const common = Math.min(most, Math.floor(blocks * (traceBlock / scale)))
            const parts = texts[a]!.findIndex((token, k) => token !== texts[b]![k])
            expect(Math.min(most, parts < 0 ? most : parts)).toBe(common)
            const shared = hashes[a]!.filter((hash) => hashes[b]!.includes(hash))
            expect(shared).toEqual(hashes[b]!.slice(0, Math.floor(common / kvBlock)))
          }
        }
      },
    ),
    { numRuns: 400 },
  )
})

test("a plan whose prefix is longer than its prompt, or contradicts another's, is refused", () => {
  const text = formatPlan(makePlan(options))
  expect(() => parsePlan(text.replace(/"promptTokens":\d+/, '"promptTokens":9'), "p.jsonl")).toThrow(
    "p.jsonl:2: prefix is longer",
  )
  const lines = text.split("\n")
  const [, own] = /"ids":\[\d+,(\d+)/.exec(lines[1]!)!
  lines[2] = lines[2]!.replace(/"ids":\[\d+/, `"ids":[${own}`)
  expect(() => parsePlan(lines.join("\n"), "p.jsonl")).toThrow(`p.jsonl:3: prefix block ${own} stands after`)
})
