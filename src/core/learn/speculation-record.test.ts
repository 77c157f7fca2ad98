/** What was drafted and accepted, per app. */
import { expect, test } from "vitest"
import { SpeculationRecord } from "./speculation-record.ts"

const result = (tokens: number, more: object = {}) => ({
  ...{ id: 1, tokens, stopped: false, answeringFrom: -1 },
  ...more,
})

test("says nothing until some request drafts; then of all apps", () => {
  const record = new SpeculationRecord(2, 0.6)
  record.observe(0, 0, result(1))
  expect(record.snapshot()).toEqual([])
  record.observe(1, 4, result(3))
  const [first, second] = record.snapshot()
  expect(first).toMatchObject({ acceptance: 0.6, hitRate: 1, length: 1, draftedTokens: 0, acceptedTokens: 0 })
  expect(second).toMatchObject({ draftedTokens: 4, acceptedTokens: 2 })
  expect(second!.length).toBeCloseTo(1.08)
  // Undrafted steps count in the mean length from then on.
  record.observe(1, 0, result(1))
  expect(record.snapshot()[1]!.length).toBeCloseTo(1.08 - 0.02 * 0.08)
})

test("counts what was drafted, where it was less than asked for", () => {
  const record = new SpeculationRecord(1, 0.6)
  record.observe(0, 4, result(2, { drafted: 1 }))
  const [app] = record.snapshot()
  expect(app).toMatchObject({ draftedTokens: 1, acceptedTokens: 1 })
  expect(app!.length).toBeCloseTo(1.02)
  // One of four was on offer, and it was accepted.
  expect(app!.hitRate).toBeCloseTo((20 + 1) / (20 + 4))
  expect(app!.acceptance).toBeCloseTo((0.6 * 50 + 1) / 51)
})

test("learns nothing from a drafter that had not come so far, nor a refusal from a request that ended", () => {
  const record = new SpeculationRecord(1, 0.6)
  record.observe(0, 4, result(1, { drafted: 0, behind: true }))
  expect(record.snapshot()[0]).toMatchObject({ acceptance: 0.6, hitRate: 1 })
  record.observe(0, 4, result(1, { stopped: true }))
  expect(record.snapshot()[0]!.acceptance).toBe(0.6)
  record.observe(0, 4, result(1))
  expect(record.snapshot()[0]!.acceptance).toBeCloseTo((0.6 * 50) / 51)
})
