/** While tenants have work waiting, what each is served follows its weight, whatever they send. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { type SimRequest, simulate } from "../../sim/simulate.ts"
import { COST, LIMITS, runs, specOf } from "../testing.ts"

const limits = { ...LIMITS, kvTokens: 8192, maxSequences: 16 }
/** Tokens that a request of the largest size here is served. */
const LARGEST = 200 + 2 * 40

interface Played {
  /** Tokens over weight when the first tenant had nothing left that had not begun. */
  levels: number[]
  ended: number
}

function play(requests: readonly SimRequest[], weights: readonly number[]): Played {
  const levels = weights.map(() => 0)
  const [begun, specs] = [new Set<number>(), new Map(requests.map(({ spec }) => [spec.id, spec]))]
  const waiting = weights.map((_, tenant) => requests.filter(({ spec }) => spec.tenant === tenant).length)
  let ended = 0
  simulate({
    config: { limits, cost: COST, policy: "slos-serve", apps: 1, tenantWeights: weights },
    requests,
    check: true,
    onEffect: (effect) => {
      if (effect.type === "finished") ended++
      if (effect.type !== "token") return
      const { tenant = 0, promptTokens } = specs.get(effect.id)!
      const first = !begun.has(effect.id)
      if (waiting.every((left) => left > 0)) {
        levels[tenant]! += ((first ? promptTokens : 0) + 2 * effect.count) / weights[tenant]!
      }
      if (!first) return
      begun.add(effect.id)
      waiting[tenant]!--
    },
  })
  return { levels, ended }
}

const sent = fc
  .record({
    weights: fc.array(fc.constantFrom(1, 2, 3), { minLength: 2, maxLength: 4 }),
    sizes: fc.array(fc.tuple(fc.integer({ min: 5, max: 200 }), fc.integer({ min: 1, max: 40 })), {
      minLength: 1,
      maxLength: 5,
    }),
    each: fc.integer({ min: 60, max: 120 }),
  })
  .map(({ weights, sizes, each }) => ({
    weights,
    requests: weights.flatMap((_, tenant) =>
      Array.from({ length: each }, (_, i): SimRequest => {
        // Tenants send different sizes.
        const [promptTokens, outputTokens] = sizes[(i + tenant) % sizes.length]!
        const spec = specOf(1000 * tenant + i, { tenant, promptTokens, tier: "bestEffort" })
        return { atUs: i, outputTokens, spec }
      }),
    ),
  }))

test("best effort: no tenant that has work is left behind, and all of it ends", () => {
  fc.assert(
    fc.property(sent, ({ weights, requests }) => {
      const { levels, ended } = play(requests, weights)
      expect(ended).toBe(requests.length)
      // What the sequences hold was begun before its turn was paid for.
      const most = 16 * LARGEST
      expect(Math.max(...levels) - Math.min(...levels)).toBeLessThanOrEqual(most)
    }),
    { numRuns: runs(12) },
  )
})
