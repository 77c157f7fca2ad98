/** What processes of one address tell each other, and what all of them are asked. */
import { deserialize, serialize } from "node:v8"
import { expect, test } from "vitest"
import { alone } from "./alone.ts"
import { Hub } from "./hub.ts"
import { askingAll } from "./siblings.ts"
import { linked } from "./testing.ts"

test("what one tells all others hear, in order, and it does not", async () => {
  const { all } = linked(3)
  const heard: [number, number, unknown][] = []
  for (const one of all) one.onTold("news", (word: unknown, from) => heard.push([one.index, from, word]))
  all[1]!.tellSoon("news", () => "first")
  all[1]!.tellSoon("gossip", () => "of no interest")
  all[1]!.tellSoon("news", () => "second")
  await expect.poll(() => heard.length).toBe(4)
  expect(heard.filter(([at]) => at === 0)).toEqual([
    [0, 1, "first"],
    [0, 1, "second"],
  ])
  expect(heard.map(([at]) => at).toSorted()).toEqual([0, 0, 2, 2])
})

test("a listener that ends takes none away that came after it", async () => {
  const { all } = linked(2)
  const heard: unknown[] = []
  const stop = all[0]!.onTold("news", () => heard.push("the first"))
  all[0]!.onTold("news", (word: unknown) => heard.push(word))
  stop()
  all[1]!.tellSoon("news", () => "news")
  await expect.poll(() => heard).toEqual(["news"])
})

test("all that serve are asked, the one that asks included", async () => {
  const { all, hub } = linked(3)
  const asking = all.map((one) => askingAll(one, "sum", (by: number) => by * (one.index + 1)))
  expect(await asking[2]!(10)).toEqual([10, 20, 30])
  hub.left(0)
  expect(await asking[2]!(10)).toEqual([20, 30])
  expect(await askingAll(null, "sum", (by: number) => by)(7)).toEqual([7])
})

test("one that leaves while it is asked is left out; the others are told that it left", async () => {
  const { all, hub } = linked(2)
  const left: number[] = []
  all[0]!.onLeft((from) => left.push(from))
  all[0]!.answers("how", () => "well")
  all[1]!.answers("how", () => new Promise(() => {}))
  const asked = all[0]!.askAll("how", null)
  setTimeout(() => hub.left(1), 20)
  expect(await asked).toEqual(["well"])
  await expect.poll(() => left).toEqual([1])
})

test("where one does not answer, or cannot, there is no answer rather than a part of it", async () => {
  const hanging = linked(2, new Hub(30)).all
  for (const one of hanging) one.answers("how", () => "well")
  hanging[1]!.answers("how", () => new Promise(() => {}))
  await expect(hanging[0]!.askAll("how", null)).rejects.toMatchObject({ status: 503 })
  // As patient as it is by default: a busy machine may take 30 ms for an answer.
  const { all } = linked(2)
  all[0]!.answers("how", () => "well")
  all[1]!.answers("how", () => {
    throw new Error("not well")
  })
  await expect(all[0]!.askAll("how", null)).rejects.toThrow(/process 1 of this gateway: not well/)
  await expect(all[0]!.ask("nothing of that kind", null)).rejects.toMatchObject({ status: 503 })
})

test("the parts of all add up to the whole", () => {
  const { all } = linked(3)
  for (const whole of [3, 4, 5, 100, 2048])
    expect(all.reduce((sum, one) => sum + one.partOf(whole), 0)).toBe(whole)
  expect(all.map((one) => one.partOf(1))).toEqual([1, 1, 1])
})

test("a signal that comes before its listener is not lost", async () => {
  const [one] = linked(1).all
  one!.heard({ type: "signal", signal: "SIGHUP", config: "a" })
  one!.heard({ type: "signal", signal: "SIGTERM" })
  const heard: unknown[] = []
  one!.on("SIGHUP", (...all) => heard.push(all))
  one!.heard({ type: "signal", signal: "SIGHUP", config: "b" })
  one!.on("SIGTERM", (...all) => heard.push(all))
  expect(heard).toEqual([
    ["SIGHUP", "a"],
    ["SIGHUP", "b"],
    ["SIGTERM", undefined],
  ])
})

test.each([1, 3])(
  "gateways elsewhere hear what %d tell here, once, and are heard by all here",
  async (count) => {
    const hub = new Hub()
    const all = count === 1 ? [alone(hub)] : linked(count, hub).all
    const out: unknown[] = []
    hub.elsewhere = {
      told: (from, told) => out.push([from, deserialize(told)]),
      left: (from) => out.push([from, "left"]),
      say: () => {},
      ask: async () => [],
    }
    const heard: unknown[] = []
    for (const one of all) {
      one.onTold("news", (word: unknown, from) => heard.push([one.index, from, word]))
      one.onLeft((from) => heard.push([one.index, from, "left"]))
    }
    all[0]!.tellSoon("news", () => "from here")
    await expect.poll(() => out).toEqual([[0, [{ topic: "news", word: "from here" }]]])
    await expect.poll(() => heard.length).toBe(count - 1)
    heard.length = 0
    hub.tell(70, serialize([{ topic: "news", word: "from there" }]))
    hub.forget(70)
    await expect.poll(() => heard.length).toBe(2 * count)
    for (const { index } of all)
      expect(heard.filter((one) => (one as unknown[])[0] === index)).toEqual([
        [index, 70, "from there"],
        [index, 70, "left"],
      ])
    hub.left(0)
    expect(out.slice(1)).toEqual([[0, "left"]])
  },
)
