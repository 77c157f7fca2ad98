/** What is told to gateways elsewhere, and how it is heard there. */
import fc from "fast-check"
import { expect, test } from "vitest"
import type { LoadWord, WholeWord } from "../backends/shared-load.ts"
import type { Placement } from "../latest-placements.ts"
import { PLACEMENTS } from "../told-placements.ts"
import { LOAD_SPEC, LOAD_WORDS, WHOLE_WORDS } from "./testing.ts"
import {
  incoming,
  incomingWhole,
  joined,
  MOST_WHOLE_WEIGHT,
  outgoing,
  outgoingWhole,
  weightOfAll,
} from "./words.ts"

const [spec, words] = [LOAD_SPEC, LOAD_WORDS]

test("times come on the clock of the machine that hears them, all else as it was said", () => {
  const [heard] = incoming([{ topic: "load of a:1", word: words }], -2e6, 2)
  const [held, sent, ...rest] = heard!.word as LoadWord[]
  expect(held).toEqual({ ...words[0], spec: { ...spec, arrivalUs: 3e6 }, deadlineUs: 4e6 })
  expect(sent).toEqual({ ...words[1], spec: { ...spec, arrivalUs: 3e6 } })
  expect(rest).toEqual(words.slice(2))
})

test("a class that is not known here has its load counted, and teaches nothing", () => {
  const [heard] = incoming([{ topic: "load of a:1", word: words }], 0, 1)
  const all = heard!.word as LoadWord[]
  expect(all.filter(({ type }) => type === "held" || type === "sent")).toMatchObject([
    { spec: { app: 0 } },
    { spec: { app: 0 } },
  ])
  expect(all.some(({ type }) => type === "saw")).toBe(false)
})

const placed = (replica: string, keys = 0): Placement => [
  { session: 1, promptTokens: 9, prefix: Array.from({ length: keys }, (_, i) => i) },
  replica,
]

test.each(["localhost:8000", "127.0.0.1:8000", "127.1.2.3:80", "[::1]:8000"])(
  "an engine at %s is another one on each machine",
  (name) => {
    const told = [
      { topic: `load of ${name}`, word: words },
      { topic: "load of 10.0.0.7:8000", word: words },
      { topic: PLACEMENTS, word: [placed(name), placed("10.0.0.7:8000")] },
    ]
    expect(outgoing(told, true)).toEqual([told])
    expect(outgoing(told, false)).toEqual([[told[1], { topic: PLACEMENTS, word: [placed("10.0.0.7:8000")] }]])
  },
)

test("what only processes of one gateway tell each other stays there", () => {
  expect(outgoing([{ topic: "rates", word: [1] }], true)).toEqual([])
})

test("pieces are small, and together are what was told", () => {
  const list = fc.array(fc.integer({ min: 0, max: 2048 }), { maxLength: 60 })
  fc.assert(
    fc.property(list, fc.integer({ min: 0, max: 3000 }), (keys, count) => {
      const placements = keys.map((length) => placed("10.0.0.7:1", length))
      const loads = Array.from(
        { length: count },
        (_, id): LoadWord => ({ type: "tokens", id: id + 1, tokens: 1 }),
      )
      const pieces = outgoing(
        [
          { topic: PLACEMENTS, word: placements },
          { topic: "load of 10.0.0.7:1", word: loads },
        ],
        false,
      )
      const all = (topic: string) =>
        pieces.flat().flatMap((told) => (told.topic === topic ? (told.word as unknown[]) : []))
      expect(all(PLACEMENTS)).toEqual(placements)
      expect(all("load of 10.0.0.7:1")).toEqual(loads)
      for (const piece of pieces) {
        const weights = piece.flatMap(({ topic, word }) =>
          (word as unknown[]).map((one) =>
            topic === PLACEMENTS ? 1 + (one as Placement)[0].prefix.length / 16 : 1,
          ),
        )
        const weight = weights.reduce((sum, one) => sum + one, 0)
        expect(weight).toBeGreaterThan(0)
        expect(weight <= 512 || weights.length === 1).toBe(true)
      }
    }),
  )
})

test("of a whole, too, times come on the clock of the machine that hears them", () => {
  const [load, places] = incomingWhole(
    [
      { topic: "load of a:1", word: WHOLE_WORDS },
      { topic: "weather", word: "rain" },
      { topic: PLACEMENTS, word: [[{ session: 1, promptTokens: 9, prefix: [1] }, "a:1", 7e6]] },
    ],
    -2e6,
    1,
  )
  const [held, waiting, stream] = load!.word as WholeWord[]
  const there = { ...spec, arrivalUs: 3e6, app: 0 }
  expect(held).toEqual({ ...WHOLE_WORDS[0], spec: there, deadlineUs: 4e6 })
  expect(waiting).toEqual({ ...WHOLE_WORDS[1], spec: there, sentUs: 3.5e6 })
  expect(stream).toEqual({ ...WHOLE_WORDS[2], spec: there, sentUs: 3.5e6, firstUs: 3.8e6 })
  expect(places!.word).toEqual([[{ session: 1, promptTokens: 9, prefix: [1] }, "a:1", 5e6]])
})

test("a whole is in small pieces, which are one again, and as much as is taken at most", () => {
  const requests = (count: number) =>
    Array.from({ length: count }, (_, i) => ({ ...WHOLE_WORDS[1], id: i + 1 }))
  const places = Array.from({ length: 4096 }, () => [...placed("10.0.0.7:1", 64), 1])
  const told = [
    { topic: "load of 10.0.0.7:1", word: requests(3000) },
    { topic: PLACEMENTS, word: places },
    { topic: "load of 10.0.0.8:1", word: requests(9000) },
  ]
  const pieces = outgoingWhole(told, false)
  for (const piece of pieces) expect(weightOfAll(piece)).toBeLessThanOrEqual(512)
  expect(weightOfAll(pieces.flat())).toBeLessThanOrEqual(MOST_WHOLE_WEIGHT)
  const all = joined(pieces.flat())
  expect(all.map(({ topic }) => topic)).toEqual(told.map(({ topic }) => topic))
  expect(all[0]).toEqual(told[0])
  expect(all[1]).toEqual(told[1])
  expect(all[2]!.word).toEqual(told[2]!.word.slice(0, 8192 - 3000))
  expect(outgoingWhole([], false)).toEqual([[]])
})
