/** Whose SLOs are kept: what counts, and from when on it does. */
import { describe, expect, test } from "vitest"
import { Calibration } from "../learn/calibration.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, liveOf } from "../testing.ts"
import { kept, LARGE, large, lengths, prompt, stream } from "./admission-testing.ts"

describe("a prompt is kept", () => {
  test("to the µs that it can be done in", () => {
    expect([54_999, 55_000].map((dueUs) => kept([prompt(1, 500, dueUs)]))).toEqual([[], [1]])
  })

  test("counting only what it owes", () => {
    const begun = Object.assign(prompt(1, 800, 55_000), { computed: 300 })
    expect(kept([begun])).toEqual([1])
    expect(kept([Object.assign(prompt(1, 801, 55_000), { computed: 300 })])).toEqual([])
  })

  test("with those before it; the largest goes, be it the first", () => {
    const both = (dueUs: number) => kept([prompt(1, 300, 50_000), prompt(2, 200, dueUs)])
    expect(both(55_000)).toEqual([1, 2])
    expect(both(54_999)).toEqual([2])
  })

  test("and the next largest, until the rest can be done", () => {
    const two = [1, 2].map((id) => prompt(id, 200, 45_000))
    expect(kept(two)).toEqual([1, 2])
    expect(kept([...two, prompt(3, 300, 45_001, { worth: 9 })])).toEqual([3])
  })

  test("with the margin that steps teach, where none is set", () => {
    const options = { margin: null }
    expect(kept([prompt(1, 500, 90_000)], { options })).toEqual([1])
    expect(kept([prompt(1, 500, 20_000)], { options })).toEqual([])
  })

  test("by what steps with prompts take, however slow or fast those of decodes alone are", () => {
    for (const [kind, ratio, counts] of [
      ["mixed", 1.5, 1.5],
      ["decode", 3, 1],
      ["decode", 1 / 3, 1],
    ] as const) {
      const calibration = new Calibration()
      for (let i = 0; i < 1000; i++) calibration.observe(kind, 1000, 1000 * ratio)
      const context = contextOf(LARGE, { margin: 0, calibration })
      const answers = (decodes: LiveRequest[], us: number) =>
        [0.999, 1.001].map((share) => kept([prompt(1, 500, share * us * counts)], { context, decodes }))
      expect(answers([], 55_000)).toEqual([[], [1]])
      // A token of a decode beside it.
      expect(answers([stream(context, 9, 1e9)], 55_100)).toEqual([[], [1]])
    }
  })

  test("where the overdue are, with their share of the steps: as long as they have a prompt to do", () => {
    const waits = liveOf(9, { tier: "bestEffort", promptTokens: 100 }, 0)
    // And a token of its own: 55.1 ms by 65 / 64.
    const dues = [55_960, 55_961]
    expect(dues.map((dueUs) => kept([prompt(1, 500, dueUs)], { overdue: [waits] }))).toEqual([[], [1]])
    const context = large()
    const decoding = stream(context, 9, 1e9)
    // A token of it by then, and no share.
    expect(kept([prompt(1, 500, 55_100)], { context, overdue: [decoding] })).toEqual([1])
    expect(kept([prompt(1, 500, 55_099)], { context, overdue: [decoding] })).toEqual([])
  })
})

describe("prompts that begin alike", () => {
  const prefix = Array.from({ length: 20 }, (_, i) => i + 1)
  /** 320 tokens in common and 80 of its own. */
  const alike = (id: number, dueUs: number) => prompt(id, 400, dueUs, { prefix })

  test("count what they have in common once", () => {
    expect(kept([alike(1, 53_000), alike(2, 53_000)])).toEqual([1, 2])
    expect(kept([alike(1, 52_999), alike(2, 52_999)])).toEqual([1])
    expect(kept([alike(1, 61_000), alike(2, 61_000), alike(3, 61_000)])).toEqual([1, 2, 3])
    expect(kept([alike(1, 60_999), alike(2, 60_999), alike(3, 60_999)])).toEqual([1, 2])
  })

  test("count it for the second where the first was turned down", () => {
    expect(kept([alike(1, 40_000), alike(2, 45_000)])).toEqual([2])
    expect(kept([alike(1, 40_000), alike(2, 44_700)])).toEqual([])
  })

  test("count it no more when the last of them is turned down", () => {
    const all = [alike(1, 52_999), alike(2, 52_999), prompt(3, 90, 53_000)]
    expect(kept(all)).toEqual([3])
    // 5 ms, 9 and 39.
    expect(kept([...all, prompt(4, 390, 53_001)])).toEqual([3, 4])
    expect(kept([...all, prompt(4, 391, 53_001)])).toEqual([3])
  })
})

describe("the tokens that follow count", () => {
  test("two longest batches after the last prompt", () => {
    // Of so many tokens at 4 ms all are due by then. They take 5.1 each, and the prompt's and half a step more.
    const left = (tokens: number) => kept([prompt(1, 10, 20_000, { maxOutputTokens: tokens }, 4_000)])
    expect(left(30)).toEqual([1])
    expect(left(45)).toEqual([])
  })

  test("and ten after it", () => {
    // 5.3 ms a step of three, where 5.2 are asked for.
    const three = [1, 2, 3].map((id) => prompt(id, 10, 20_000, { maxOutputTokens: 900 }, 5_200))
    const context = contextOf(LARGE, { margin: 0, outputLengths: lengths(600) })
    expect(kept(three, { context })).toHaveLength(2)
    const ends = [1, 2, 3].map((id) => prompt(id, 10, 20_000, { maxOutputTokens: 30 }, 5_200))
    expect(kept(ends)).toHaveLength(3)
  })

  test("from when the last prompt is due, not the first", () => {
    const first = prompt(1, 10, 20_000, { maxOutputTokens: 40 }, 4_000)
    expect(kept([first])).toEqual([1])
    // By 1.2 s all of its tokens have had time.
    expect(kept([first, prompt(2, 10, 1_000_000)])).toEqual([1, 2])
  })
})

describe("a stream that runs", () => {
  /** Whether a prompt of 500 tokens due in 70 ms is kept beside it. */
  const beside = (tpotUs: number, changes: { aheadUs?: number; left?: number } = {}, dueUs = 70_000) => {
    const context = large()
    return (
      kept([prompt(2, 500, dueUs)], { context, decodes: [stream(context, 1, tpotUs, changes)] }).length > 0
    )
  }

  test("and can keep its pace takes its time", () => {
    expect(beside(60_000)).toBe(true)
    expect(beside(10_000)).toBe(false)
    expect(beside(5_100)).toBe(false)
  })

  test("and cannot counts for nothing", () => expect(beside(5_099)).toBe(true))

  test("does count where what it is ahead makes up for it, to its end", () => {
    // Twenty tokens at 5 ms need two more ms.
    expect(beside(5_000, { left: 20, aheadUs: 1_999 }, 100_000)).toBe(true)
    expect(beside(5_000, { left: 20, aheadUs: 2_000 }, 100_000)).toBe(false)
  })

  test("and is late for its next token takes its time all the same, where its pace can be kept", () => {
    // 500 tokens and one of it.
    const late = (dueUs: number) => beside(10_000, { left: 1, aheadUs: -8_000 }, dueUs)
    expect([55_099, 55_100].map(late)).toEqual([false, true])
  })

  test("and drafts keeps a pace by what its drafts are expected to yield", () => {
    // 5.3 ms for 1 + 0.7 + 0.49 tokens.
    const drafting = (tpotUs: number) => {
      const context = large()
      const decodes = [stream(context, 1, tpotUs)]
      return kept([prompt(2, 500, 70_000)], { context, decodes, options: { fixedDraft: 2 } }).length > 0
    }
    expect(drafting(2_430)).toBe(false)
    expect(drafting(2_410)).toBe(true)
  })

  test("and is overdue takes its time from now on, whatever its pace", () => {
    const context = large()
    const overdue = [stream(context, 1, 10_000, { aheadUs: 1e6 })]
    expect(kept([prompt(2, 500, 70_000)], { context, overdue })).toEqual([])
  })
})
