/** Which waiting requests are one group, and what they have in common. */
import { describe, expect, test } from "vitest"
import type { LiveRequest } from "../request.ts"
import { liveOf } from "../testing.ts"
import { commonBlocks, type PrefixGroup, PrefixGroups } from "./prefix-groups.ts"

const BLOCK = 16

/** A prompt of blocks with these hashes, and a few tokens more. */
const request = (prefix: readonly number[], id = 0, rest = 5) =>
  liveOf(id, { promptTokens: prefix.length * BLOCK + rest, prefix })

/** Joins in order; answers what each was told, and which members founded a group. */
function joinAll(requests: readonly LiveRequest[], start = 0) {
  const groups = new PrefixGroups<LiveRequest>(BLOCK)
  const founders: [LiveRequest, PrefixGroup][] = []
  const joined = requests.map((one) =>
    groups.join(one, one, start, (first, group) => founders.push([first, group])),
  )
  return { groups, joined, founders }
}

describe("PrefixGroups", () => {
  test("the first is alone until a second comes; then both have the group, and later ones too", () => {
    const all = [request([1, 2, 3]), request([1, 2, 4]), request([1, 2, 5])]
    const { joined, founders } = joinAll(all)
    const [first, second, third] = joined
    expect(first).toBeNull()
    expect(second).toEqual({ start: 0, end: 2 * BLOCK, kept: 0 })
    expect(third).toBe(second)
    expect(founders).toEqual([[all[0], second]])
    expect(founders[0]![1]).toBe(second)
  })

  test("only what is missing is in common: it starts where their computing would", () => {
    const { joined } = joinAll([request([1, 2, 3, 4]), request([1, 2, 3, 5])], BLOCK)
    expect(joined[1]).toMatchObject({ start: BLOCK, end: 3 * BLOCK })
  })

  test("requests that miss different blocks, or have none to share, are no group", () => {
    const { joined, founders } = joinAll([request([1, 2]), request([3, 2]), request([]), request([], 1)])
    expect(joined).toEqual([null, null, null, null])
    expect(founders).toEqual([])
  })

  test("the last token is each one's own: what ends with the block is no group", () => {
    // Both prompts end with their only block, whose last token each must compute.
    expect(joinAll([request([1], 0, 0), request([1], 1, 0)]).joined[1]).toBeNull()
    // The shorter prompt decides.
    const { joined } = joinAll([request([1, 2, 3]), request([1, 2], 1, 0)])
    expect(joined[1]).toMatchObject({ start: 0, end: BLOCK })
  })

  test("one that goes its own way before the others do counts in full; one that stays longer joins", () => {
    const { joined } = joinAll([
      request([1, 2, 3]),
      request([1, 2, 3]),
      request([1, 9, 3]),
      request([1, 2, 3, 4]),
    ])
    expect(joined[2]).toBeNull()
    expect(joined[3]).toBe(joined[1])
    expect(joined[1]).toMatchObject({ end: 3 * BLOCK })
  })

  test("forgets everything when cleared", () => {
    const { groups } = joinAll([request([1, 2]), request([1, 2])])
    groups.clear()
    expect(groups.join(request([1, 2]), request([1, 2]), 0, () => {})).toBeNull()
  })
})

test("commonBlocks leaves out the block of the last token", () => {
  const common = (a: LiveRequest, b: LiveRequest, least = 0) => commonBlocks(a, b, least, BLOCK)
  expect(common(request([1, 2, 3]), request([1, 2, 4]))).toBe(2)
  expect(common(request([1, 2, 3]), request([1, 2, 4]), 2)).toBe(2)
  expect(common(request([1, 2, 3]), request([1, 2, 3]))).toBe(3)
  expect(common(request([1, 2, 3]), request([1, 2, 3], 1, 0))).toBe(2)
  expect(common(request([1]), request([2]))).toBe(0)
})
