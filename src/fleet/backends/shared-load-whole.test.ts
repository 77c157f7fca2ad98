/** What a gateway has at an engine, told as a whole to one that knows none of it, or a part. */
import { expect, test } from "vitest"
import { specOf } from "../../core/testing.ts"
import { ENGINE_RULES } from "../engine-rules.ts"
import { NOTHING_HELD } from "../sent.ts"
import { Twin, type TwinSpec } from "../twin.ts"
import { type LoadWord, SharedLoad } from "./shared-load.ts"

/** With a clock that is so much behind that of all. */
function gateway(clockUs = 0) {
  const twin = new Twin({ rules: ENGINE_RULES.vllm })
  const forced: [sentUs: number, forced: boolean][] = []
  let take = (): LoadWord[] => []
  const load = new SharedLoad({
    ...{ twin, clockUs, saw: () => {} },
    sentElsewhere: (_spec, isForced, sentUs) => forced.push([sentUs, isForced]),
    tellSoon: (words) => {
      take = words as () => LoadWord[]
    },
  })
  /** What is yet to be told. */
  const told = () => {
    const words = structuredClone(take())
    take = () => []
    return words
  }
  const send = (id: number, nowUs: number, changes: Partial<TwinSpec> = {}, isForced = false) => {
    twin.sent(id, spec(changes), nowUs)
    load.sent(id, spec(changes), isForced)
  }
  const tokens = (id: number, count: number, nowUs: number) => {
    twin.tokens(id, count, nowUs)
    load.tokens(id, count)
  }
  const end = (id: number, nowUs: number) => {
    twin.ended(id, nowUs)
    load.ended(id, true)
  }
  const whole = (nowUs: number) => structuredClone(load.whole(nowUs))
  const knows = (nowUs: number) =>
    [...twin.underWay(nowUs)]
      .filter(([id]) => id < 0)
      .map(([, { spec, tokens }]) => [spec.promptTokens, tokens])
  return { twin, load, forced, told, send, tokens, end, whole, knows }
}

const spec = (changes: Partial<TwinSpec> = {}): TwinSpec => ({
  ...specOf(1, { promptTokens: 500, arrivalUs: 1e6 }),
  ...changes,
})

test("what is under way is known as it is: its prompt, its tokens, its deadlines, on the clock here", () => {
  const [one, other] = [gateway(), gateway(7e8)]
  one.send(1, 1e6, { promptTokens: 501 })
  one.tokens(1, 1, 1.2e6)
  one.tokens(1, 8, 1.4e6)
  one.send(2, 1.4e6, { promptTokens: 502 })
  other.load.hearWhole(one.whole(1.5e6), 3, 1.5e6 - 7e8)
  const [own, found] = [one.twin.underWay(1.5e6), other.twin.underWay(1.5e6 - 7e8)]
  const onClock = [...own.values()].map(({ spec, sentUs, firstUs, ...rest }) => ({
    ...rest,
    spec: { ...spec, arrivalUs: spec.arrivalUs! - 7e8 },
    sentUs: sentUs - 7e8,
    firstUs: firstUs === null ? null : firstUs - 7e8,
  }))
  expect([...found.values()]).toEqual(onClock)
  const [here, there] = [one.twin.snapshot(1.5e6), other.twin.snapshot(1.5e6 - 7e8)]
  for (const what of ["running", "waiting", "kvUsedTokens", "prefillBacklogTokens", "bestEffort"] as const)
    expect([what, there[what]]).toEqual([what, here[what]])
})

test("what is held is known with its deadline until it is sent or ends", () => {
  const [one, other] = [gateway(), gateway(7e8)]
  one.load.held(1, spec({ promptTokens: 501 }), 2e6)
  one.load.held(2, spec({ promptTokens: 502 }), 3e6)
  one.told()
  other.load.hearWhole(one.whole(1e6), 3, 1e6 - 7e8)
  const { before, after } = other.load.around(2.5e6 - 7e8, NOTHING_HELD)
  expect([before, after].map((specs) => specs.map(({ promptTokens }) => promptTokens))).toEqual([
    [501],
    [502],
  ])
  one.send(1, 1e6, { promptTokens: 501 })
  other.load.hear(one.told(), 3, 1e6 - 7e8)
  expect([other.load.heldElsewhere, other.twin.inFlight]).toEqual([1, 1])
  one.load.ended(2, false)
  other.load.hearWhole(one.whole(1e6), 3, 1e6 - 7e8)
  expect([other.load.heldElsewhere, other.twin.inFlight]).toEqual([0, 1])
})

test("a whole and what is told make no request two, whichever of both was heard", () => {
  const one = gateway()
  one.send(1, 1e6, { promptTokens: 501 })
  one.send(2, 1e6, { promptTokens: 502 })
  const early = one.told()
  one.tokens(1, 3, 1.1e6)
  const later = one.told()
  one.tokens(1, 4, 1.2e6)
  one.end(2, 1.2e6)
  one.send(3, 1.2e6, { promptTokens: 503 })
  const last = one.told()
  const whole = one.whole(1.3e6)
  one.tokens(1, 5, 1.3e6)
  one.end(3, 1.3e6)
  const after = one.told()
  for (let heard = 0; heard < 8; heard++) {
    const other = gateway()
    for (const [i, words] of [early, later, last].entries())
      if ((heard & (1 << i)) !== 0) other.load.hear(words, 3, 1.3e6)
    for (let again = 0; again < 2; again++) {
      other.load.hearWhole(whole, 3, 1.3e6)
      expect([heard, ...other.knows(1.3e6).toSorted()]).toEqual([heard, [501, 7], [503, 0]])
      expect(other.twin.inFlight).toBe(2)
    }
    other.load.hear(after, 3, 1.4e6)
    expect(other.knows(1.4e6)).toEqual([[501, 12]])
    expect(other.twin.inFlight).toBe(1)
  }
})

test("of one process it says nothing of another's, nor of one's own", () => {
  const [one, other] = [gateway(), gateway()]
  one.send(1, 1e6, { promptTokens: 501 })
  other.send(1, 1e6, { promptTokens: 777 })
  other.load.hearWhole(one.whole(1e6), 3, 1e6)
  other.load.hearWhole(one.whole(1e6), 4, 1e6)
  expect(other.twin.inFlight).toBe(3)
  other.load.hearWhole([], 3, 1e6)
  expect(other.twin.inFlight).toBe(2)
  other.load.left(4, 1e6)
  expect(other.twin.inFlight).toBe(1)
})

test("what was forced out counts from when it was", () => {
  const [one, other] = [gateway(), gateway()]
  one.send(1, 1e6, { tier: "bestEffort" }, true)
  one.send(2, 1.5e6)
  other.load.hearWhole(one.whole(2e6), 3, 2e6)
  other.load.hearWhole(one.whole(2e6), 3, 2e6)
  expect(other.forced).toEqual([
    [1e6, true],
    [1.5e6, false],
  ])
})

test("tokens of before teach nothing of how fast the engine is", () => {
  const one = gateway()
  for (let id = 1; id <= 50; id++) {
    one.send(id, 1e6, { promptTokens: 500 + id })
    one.tokens(id, 400, 2e6)
  }
  const run = (hears: boolean) => {
    const other = gateway()
    other.send(1, 2e6)
    other.tokens(1, 1, 2.1e6)
    for (let i = 1; i <= 40; i++) {
      if (i === 20 && hears) other.load.hearWhole(one.whole(2e6), 3, 2.1e6 + 20 * 25_000)
      if (i === 20 && hears) other.load.left(3, 2.1e6 + 20 * 25_000)
      other.tokens(1, 1, 2.1e6 + i * 25_000)
    }
    return other.twin.fit.model
  }
  expect(run(true)).toEqual(run(false))
})
