/** What the map believes of KV elsewhere: found, faded, forgotten, bounded. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { Random } from "../random.ts"
import { PrefixMap } from "./prefix-map.ts"
import { IDLE, routed } from "./testing.ts"

/** A stride of keys, by one letter. */
const text = (letters: string) => Array.from(letters, (letter) => letter.repeat(8)).join("")
const STRIDE = 128

test("a prefix is known where it was sent, as far as requests are the same, and never the whole prompt", () => {
  const map = new PrefixMap()
  map.sent(routed(text("abcd")), 1, IDLE)
  map.sent(routed(text("ab")), 2, IDLE)
  const asked = routed(text("abcx"))
  expect([0, 1, 2].map((replica) => map.known(asked, replica, IDLE))).toEqual([0, 3 * STRIDE, 2 * STRIDE])
  expect(map.known(routed(text("abcd")), 1, IDLE)).toBe(4 * STRIDE - 1)
  expect(map.known(routed(text("xbcd")), 1, IDLE)).toBe(0)
  expect(map.holders(asked, 2, 0)).toEqual([1])
  expect(map.holders(routed(text("abx")), 2, 0).sort()).toEqual([1, 2])
  expect(map.holders(routed(text("x")), 2, 0)).toEqual([])
  expect(map.sharers(asked, 2, 0).sort()).toEqual([1, 2])
  expect(map.sharers(routed(text("x")), 2, 0)).toEqual([])
})

test("keys of longer text: so many to a stride as were told", () => {
  const map = new PrefixMap({ keyTokens: 64 })
  map.sent(routed("abcdef", 400), 0, IDLE)
  expect(map.known(routed("abcdxx", 400), 0, IDLE)).toBe(256)
  expect(map.known(routed("abcxxx", 400), 0, IDLE)).toBe(128)
})

test("it fades from its end once the replica has evicted more than it held before", () => {
  const map = new PrefixMap()
  map.sent(routed(text("abcd")), 0, { ...IDLE, kvEvictedTokens: 5000, kvUsedTokens: 300 })
  const known = (kvEvictedTokens: number) => map.known(routed(text("abcdx")), 0, { ...IDLE, kvEvictedTokens })
  expect(known(5000)).toBe(4 * STRIDE)
  expect(known(5300)).toBe(4 * STRIDE)
  expect(known(5300 + 1)).toBe(3 * STRIDE)
  expect(known(5300 + 4 * STRIDE)).toBe(0)
  // A replica that counts from the start again is another one.
  expect(known(100)).toBe(0)
  // Used again, it is as new.
  map.sent(routed(text("abcd")), 0, { ...IDLE, kvEvictedTokens: 9000, kvUsedTokens: 300 })
  expect(known(9300)).toBe(4 * STRIDE)
})

test("a lost replica has nothing, until it is sent something again", () => {
  const map = new PrefixMap()
  const request = routed(text("ab"), 300, 7)
  map.sent(request, 0, IDLE)
  map.sent(request, 3, IDLE)
  map.forget(3)
  expect(map.known(request, 3, IDLE)).toBe(0)
  expect(map.homeOf(7)).toBe(-1)
  expect(map.holders(request, 2, 0.9)).toEqual([0])
  map.forget(0)
  expect(map.holders(request, 2, 0.9)).toEqual([])
  map.sent(request, 3, IDLE)
  expect(map.homeOf(7)).toBe(3)
  expect(map.holders(request, 2, 0)).toEqual([3])
})

test("a session's home has all of its last prompt, also where no keys say so", () => {
  const map = new PrefixMap()
  map.sent({ session: 5, promptTokens: 700, prefix: [] }, 2, IDLE)
  const next = { session: 5, promptTokens: 900, prefix: [] }
  expect([1, 2].map((replica) => map.known(next, replica, IDLE))).toEqual([0, 700])
})

test("holders are drawn evenly", () => {
  const map = new PrefixMap()
  const request = routed(text("a"), 200)
  for (let replica = 0; replica < 5; replica++) map.sent(request, replica, IDLE)
  const counts = [0, 0, 0, 0, 0]
  for (let i = 0; i < 100; i++) for (const replica of map.holders(request, 2, i / 100)) counts[replica]!++
  expect(counts).toEqual([40, 40, 40, 40, 40])
})

test("memory is bounded, and what was used last stays", () => {
  const map = new PrefixMap({ mostEntries: 100 })
  const kept = routed(text("kept"), 600)
  for (let i = 0; i < 1000; i++) {
    map.sent(
      { session: i, promptTokens: 1280, prefix: Array.from({ length: 80 }, (_, k) => i * 1000 + k) },
      i % 7,
      IDLE,
    )
    map.sent(kept, 0, IDLE)
    expect(map.size).toBeLessThanOrEqual(100)
  }
  expect(map.known(kept, 0, IDLE)).toBe(4 * STRIDE)
})

test("against a plain list of all that was sent: the same answers, whatever comes", () => {
  const step = fc.record({
    letters: fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 4 }),
    replica: fc.integer({ min: 0, max: 3 }),
    what: fc.constantFrom("send", "send", "send", "forget", "ask"),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const map = new PrefixMap()
      let sent: { letters: string; replica: number }[] = []
      for (const { letters, replica, what } of steps) {
        const request = routed(text(letters), 4000)
        if (what === "send") {
          map.sent(request, replica, IDLE)
          sent.push({ letters, replica })
        } else if (what === "forget") {
          map.forget(replica)
          sent = sent.filter((one) => one.replica !== replica)
        }
        const common = (other: string) => {
          let n = 0
          while (n < letters.length && letters[n] === other[n]) n++
          return n
        }
        const longestAt = (at: number) =>
          Math.max(0, ...sent.filter((one) => one.replica === at).map((one) => common(one.letters)))
        const all = [0, 1, 2, 3].map(longestAt)
        expect([0, 1, 2, 3].map((at) => map.known(request, at, IDLE) / STRIDE)).toEqual(all)
        const most = Math.max(...all)
        const having = most === 0 ? [] : [0, 1, 2, 3].filter((at) => all[at] === most)
        expect(map.holders(request, 4, 0.3).sort()).toEqual(having)
        const [, second = 0] = [...all].sort((a, b) => b - a)
        const sharing = second === 0 ? [] : [0, 1, 2, 3].filter((at) => all[at]! >= second)
        expect(map.sharers(request, 4, 0.3).sort()).toEqual(sharing)
        expect(map.sharedTokens(request)).toBe(second * STRIDE)
      }
    }),
  )
})

test("many prefixes on many replicas, lost and found: entries are counted right", () => {
  const random = new Random("prefix map")
  const map = new PrefixMap({ mostEntries: 300 })
  for (let i = 0; i < 3000; i++) {
    const letters = Array.from({ length: random.integer(1, 6) }, () => "abc"[random.below(3)]).join("")
    const request = routed(text(letters), 2000)
    if (random.uniform() < 0.05) map.forget(random.below(20))
    map.holders(request, 3, random.uniform())
    map.sent(request, random.below(20), IDLE)
    expect(map.size).toBeLessThanOrEqual(300)
    expect(map.size).toBeGreaterThan(0)
  }
  // All of it can be pushed out again, to the last entry.
  for (let i = 0; i < 400; i++)
    map.sent(
      { session: -1, promptTokens: 200, prefix: Array.from({ length: 8 }, (_, k) => 2 ** 45 + i * 8 + k) },
      0,
      IDLE,
    )
  expect(map.size).toBe(300)
})
