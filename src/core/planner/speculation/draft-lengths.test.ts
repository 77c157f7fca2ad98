/** How many tokens decodes may verify for a batch to stay within its time. A step is 5 ms and 0.1 ms a token. */
import { describe, expect, test } from "vitest"
import { DEFAULT_OPTIONS } from "../../options.ts"
import { contextOf, liveOf } from "../../testing.ts"
import { BatchBuilder } from "../batch-builder.ts"
import { emptyWork } from "../work.ts"
import { decodeTimeUs, draftWithin, lengthsWithin } from "./draft-lengths.ts"

const context = () => contextOf(undefined, { margin: 0 })
/** `count` decodes that should draft so many tokens each. */
function workOf(count: number, fixedDraft: number) {
  const work = emptyWork({ ...DEFAULT_OPTIONS, fixedDraft })
  for (let id = 0; id < count; id++)
    work.decodes.push(Object.assign(liveOf(id), { output: 1, computed: 100 }))
  return work
}

describe("the time of decodes", () => {
  test("counts the tokens that each verifies, up to a length, one more for the first ones", () => {
    const work = workOf(4, 3)
    expect(decodeTimeUs(context(), work, 4, 1)).toBe(5_400)
    expect(decodeTimeUs(context(), work, 4, 3)).toBe(6_200)
    expect(decodeTimeUs(context(), work, 4, 3, 2)).toBe(6_400)
    expect(decodeTimeUs(context(), work, 3, 3)).toBe(5_900)
    // None verifies more than it should.
    expect(decodeTimeUs(context(), work, 4, 9)).toBe(6_600)
    expect(decodeTimeUs(context(), work, 0, 1)).toBe(0)
  })

  test("counts where they are", () => {
    const cost = { ...context().cost, pieces: [{ slowPairs: 1 }] }
    expect(decodeTimeUs(contextOf(undefined, { cost }), workOf(2, 0), 2, 1)).toBe(202)
  })
})

describe("the lengths for a batch of a given time", () => {
  const lengths = (limitUs: number, fixedDraft = 3, count = 4) =>
    lengthsWithin(context(), workOf(4, fixedDraft), count, limitUs)

  test("are what was planned where that fits", () => {
    expect(lengths(6_600)).toEqual({ longest: 4, more: 0 })
    expect(lengths(1e9)).toEqual({ longest: 4, more: 0 })
    expect(lengths(1e9, 0)).toEqual({ longest: 1, more: 0 })
  })

  test("are the longest that all can have, and one more for as many of the first due as fit", () => {
    expect(lengths(6_599)).toEqual({ longest: 3, more: 3 })
    expect(lengths(6_400)).toEqual({ longest: 3, more: 2 })
    expect(lengths(6_399)).toEqual({ longest: 3, more: 1 })
    expect(lengths(6_299)).toEqual({ longest: 3, more: 0 })
    expect(lengths(6_199)).toEqual({ longest: 2, more: 3 })
    expect(lengths(5_600, 3, 3)).toEqual({ longest: 2, more: 0 })
  })

  test("are one token where not even that fits", () => {
    expect(lengths(1_000)).toEqual({ longest: 1, more: 0 })
  })
})

describe("one decode more in a batch", () => {
  test("drafts all that it should, or nothing, or does not fit", () => {
    const work = workOf(1, 3)
    const batch = new BatchBuilder(context())
    const within = (limitUs: number) => draftWithin(batch, work, work.decodes[0]!, limitUs)
    expect([within(5_400), within(5_399), within(5_100), within(5_099)]).toEqual([3, 0, 0, -1])
    const alone = workOf(1, 0)
    expect(draftWithin(batch, alone, alone.decodes[0]!, 5_100)).toBe(0)
    expect(draftWithin(batch, alone, alone.decodes[0]!, 5_099)).toBe(-1)
  })

  test("leaves the margin free", () => {
    const work = workOf(1, 0)
    const batch = new BatchBuilder(contextOf(undefined, { margin: 0.1 }))
    expect(draftWithin(batch, work, work.decodes[0]!, 5_610)).toBe(0)
    expect(draftWithin(batch, work, work.decodes[0]!, 5_609)).toBe(-1)
  })

  test("attends to its context", () => {
    const work = workOf(1, 0)
    const cost = { ...context().cost, pieces: [{ slowPairs: 1 }] }
    const batch = new BatchBuilder(contextOf(undefined, { cost, margin: 0 }))
    expect(draftWithin(batch, work, work.decodes[0]!, 101)).toBe(0)
    expect(draftWithin(batch, work, work.decodes[0]!, 100)).toBe(-1)
  })
})
