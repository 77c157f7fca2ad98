/** Prompts all rows of which are read: their steps take as long as planned, and are planned as short as they must be. */
import { describe, expect, test } from "vitest"
import type { CostModel } from "./cost.ts"
import { slosServe } from "./policy/slos-serve.ts"
import type { Batch, RequestSpec } from "./protocol.ts"
import { Played } from "./replica-testing.ts"
import { COST, liveOf } from "./testing.ts"
import { TIME_PARTS } from "./time-account.ts"

/** 5 ms a step, 0.01 ms a token, 0.1 ms a row: rows are what takes time. */
const cost: CostModel = { ...COST, pieces: [{ step: 5000, tokens: 10, outputs: 100 }] }
const stepOf = (tokens: number, rows: number) => 5000 + 10 * tokens + 100 * rows
const played = (more: object = {}) => new Played({ cost, policy: slosServe, options: { margin: 0 }, ...more })
const scored: Partial<RequestSpec> = { promptTokens: 300, maxOutputTokens: 4, allRows: true }
const rowsOf = ({ items }: Batch) => items.map(({ rows }) => rows)
const sloOf = (ttftUs: number, ttftSlowdown = 0) => ({
  ...{ ttftUs, ttftSlowdown, maxGapUs: Infinity, tpotUs: 1e6, thinkingTpotUs: 1e6 },
})

describe("a prompt all rows of which are read", () => {
  test("takes a row a token while it is computed, then one a step as any other", () => {
    const one = played()
    one.arrives(1, scored)
    const prompt = one.step()
    expect(rowsOf(prompt)).toEqual([300])
    expect(prompt.predictedUs).toBe(stepOf(300, 300))
    const decode = one.step()
    expect(decode.items).toMatchObject([{ tokens: 1, sample: true }])
    expect(decode.predictedUs).toBe(stepOf(1, 1))

    const other = played()
    other.arrives(1, { ...scored, allRows: false })
    const usual = other.step()
    expect(usual.items[0]).not.toHaveProperty("rows")
    expect(usual.predictedUs).toBe(stepOf(300, 1))
  })

  test("is cut so that decodes beside it are on time", () => {
    const chunkBeside = (allRows: boolean) => {
      const one = played()
      one.arrives(1, { promptTokens: 64, maxOutputTokens: 50, slo: { ...sloOf(1e6), tpotUs: 20_000 } })
      one.step()
      one.nowUs = 1e6 - 1000
      one.arrives(2, { ...scored, promptTokens: 500, slo: sloOf(1e7), allRows })
      const { items, predictedUs } = one.step()
      expect(predictedUs).toBeLessThanOrEqual(21_000)
      return items.find(({ id }) => id === 2)?.tokens ?? 0
    }
    expect(chunkBeside(false)).toBeGreaterThan(400)
    const cut = chunkBeside(true)
    expect(cut).toBeGreaterThan(0)
    expect(cut).toBeLessThan(160)
  })

  test("is turned down where its rows make it late, not before", () => {
    for (const [ttftUs, kept] of [
      [stepOf(300, 300), true],
      [stepOf(300, 300) - 1, false],
    ] as const) {
      const one = played()
      one.arrives(1, { ...scored, slo: sloOf(ttftUs) })
      one.step()
      expect(one.of("demoted").length === 0).toBe(kept)
    }
  })

  test("has a TTFT, where that is a multiple, of what it takes itself, and teaches nothing of others", () => {
    const one = played()
    expect(one.replica.zeroLoadPrefillUs(300)).toBe(stepOf(300, 1))
    expect(one.replica.zeroLoadPrefillUs(300, true)).toBe(stepOf(300, 300))
    one.arrives(1, { ...scored, maxOutputTokens: 1, slo: sloOf(Infinity, 10) })
    one.step()
    one.poll()
    expect(one.of("finished")[0]!.outcome.ttftUs).toBe(10 * stepOf(300, 300))
    for (const id of [2, 3, 4]) {
      one.arrives(id, { ...scored, maxOutputTokens: 1 })
      one.step()
    }
    expect(one.replica.zeroLoadPrefillUs(300)).toBe(stepOf(300, 1))
  })

  test("has its own work in its account, no more", () => {
    const one = played()
    one.arrives(1, { ...scored, maxOutputTokens: 1 })
    one.arrives(2, { promptTokens: 64, maxOutputTokens: 1 })
    one.step()
    one.poll()
    const [a, b] = one.of("finished").map(({ outcome }) => outcome.account!.parts)
    const [prefill, others] = [TIME_PARTS.indexOf("prefill"), TIME_PARTS.indexOf("others")]
    expect(a![prefill]).toBe(stepOf(300, 300))
    expect(b![prefill]).toBe(stepOf(64, 1))
    expect(b![others]).toBe(stepOf(364, 301) - stepOf(64, 1))
  })

  test("computed again after its first token, has one row like any other", () => {
    const one = liveOf(1, scored)
    expect([one.rowsOf(50, false), one.rowsOf(50, true)]).toEqual([50, 50])
    one.output = 1
    expect([one.rowsOf(50, false), one.rowsOf(50, true)]).toEqual([0, 1])
  })
})
