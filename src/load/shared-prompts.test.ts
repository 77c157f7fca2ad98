/** Scenario `shared`: as published here, system prompts by rank, and prompts that really begin alike. */
import { expect, test } from "vitest"
import { prefixBlocks } from "./prefix.ts"
import { promptOf } from "./replay.ts"
import { makePlan, type WorkloadOptions } from "./workload.ts"

const options: WorkloadOptions = {
  scenario: "shared",
  ratePerSec: 50,
  durationMs: 60_000,
  seed: 3,
  scale: 1,
  arrivals: "poisson",
  burstiness: 1,
  maxSequenceTokens: 1e6,
  traces: {},
}
const { requests } = makePlan(options)
const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!

test("chats grow over 1 to 6 rounds, 2.5 of them on average, with the lengths that were asked for", () => {
  const counts = requests.map(({ rounds }) => rounds.length)
  expect(new Set(counts)).toEqual(new Set([1, 2, 3, 4, 5, 6]))
  expect(Math.abs(mean(counts) - 2.5)).toBeLessThan(0.12)
  const later = requests.flatMap(({ rounds }) => rounds.slice(1))
  expect(median(later.map(({ promptTokens }) => promptTokens))).toBeGreaterThan(54)
  expect(median(later.map(({ promptTokens }) => promptTokens))).toBeLessThan(66)
  expect(Math.abs(mean(later.map(({ delayMs }) => delayMs)) - 5000)).toBeLessThan(400)
  expect(Math.abs(mean(later.map(({ outputTokens }) => outputTokens)) - 200)).toBeLessThan(12)
  for (const { rounds, session } of requests) {
    expect(rounds.every((round) => round.class === "chat")).toBe(true)
    expect(session === null).toBe(rounds.length === 1)
  }
})

test("50 system prompts of 500 to 4000 tokens, the k-th most common as often as 1/k; another seed has others", () => {
  const uses = new Map<number, number>()
  for (const { prefix, rounds } of requests) {
    const tokens = prefix!.blockTokens
    uses.set(tokens, (uses.get(tokens) ?? 0) + 1)
    expect(prefix!.ids).toHaveLength(1)
    expect(rounds[0]!.promptTokens).toBeGreaterThan(tokens)
  }
  expect(uses.size).toBeGreaterThan(45)
  expect(Math.min(...uses.keys())).toBeGreaterThanOrEqual(500)
  expect(Math.max(...uses.keys())).toBeLessThanOrEqual(4000)
  const [first, second, third] = [...uses.values()].sort((a, b) => b - a) as [number, number, number]
  expect(first / requests.length).toBeGreaterThan(0.19)
  expect(first / requests.length).toBeLessThan(0.25)
  expect(first / second).toBeGreaterThan(1.6)
  expect(first / third).toBeGreaterThan(2.4)
  const other = makePlan({ ...options, seed: 4 }).requests
  expect(other.some(({ prefix }) => prefix !== undefined && uses.has(prefix.blockTokens) === false)).toBe(
    true,
  )
})

test.each([1, 8, 100])(
  "at scale %d, prompts of one system prompt begin with the same tokens and KV blocks, and only they",
  (scale) => {
    const plan = makePlan({ ...options, scale, ratePerSec: 2 }).requests
    const words = { nonce: "n", tokenRange: { from: 0, to: 2 ** 31 } }
    const texts = plan.map((request, i) => promptOf(request, i, 0, words))
    const blocks = plan.map((request, i) => prefixBlocks(request, i, texts[i]!.length, 16))
    let pairs = 0
    for (let b = 1; b < plan.length; b++) {
      const [mine, yours] = [plan[0]!, plan[b]!]
      const same = mine.prefix?.ids[0] === yours.prefix?.ids[0]
      const common = same ? Math.floor(mine.prefix!.blockTokens) : 0
      expect(texts[b]!.slice(0, common)).toEqual(texts[0]!.slice(0, common))
      expect(texts[b]![common]).not.toBe(texts[0]![common])
      expect(blocks[b]!.filter((hash) => blocks[0]!.includes(hash))).toHaveLength(Math.floor(common / 16))
      if (same) pairs++
    }
    expect(pairs).toBeGreaterThan(0)
  },
)
