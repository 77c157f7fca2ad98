/** What processes of one address tell each other, and what all of them are asked. */
import { deserialize, serialize } from "node:v8"
import { expect, test } from "vitest"
import { alone } from "./alone.ts"
import { Hub } from "./hub.ts"
import type { ToSibling } from "./messages.ts"
import { askingAll, Siblings } from "./siblings.ts"
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
      again() {},
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

test("one that comes later hears what each has, and once it has begun to listen: all before and after it, nothing twice", async () => {
  const { hub, all } = linked(2)
  const count = (one: Siblings) => {
    let own = 0
    const known = new Map<number, number>()
    one.onTold("count", (more: number, from) => known.set(from, (known.get(from) ?? 0) + more))
    one.has<number>("count", { tells: () => [own], hears: ([sum = 0], from) => known.set(from, sum) })
    const add = (more: number) => {
      own += more
      one.tellSoon("count", () => more)
    }
    return { add, known: () => [...known] }
  }
  const [first, second] = all.map(count)
  first!.add(1)
  second!.add(10)
  await expect.poll(() => [first!.known(), second!.known()]).toEqual([[[1, 10]], [[0, 1]]])
  hub.left(1)
  // What is yet to be told when it comes is in what it is told as a whole.
  first!.add(2)
  const send = (message: ToSibling) => setImmediate(() => later.heard(message))
  const later: Siblings = new Siblings(1, 2, (message) => setImmediate(() => hub.heard(1, message, send)))
  hub.joined(1, send)
  first!.add(4)
  const third = count(later)
  await expect.poll(() => third.known()).toEqual([[0, 7]])
  first!.add(8)
  third.add(100)
  await expect.poll(() => [first!.known(), third.known()]).toEqual([[[1, 110]], [[0, 15]]])
})

test("what all have alike one tells; of several listeners the last hears, and all tell until they are given up", async () => {
  const { hub, all } = linked(3)
  const heard: string[] = []
  for (const one of all) one.has<string>("common", { tells: () => ["same"], hears: () => {}, common: true })
  const stop = all[0]!.has<string>("own", { tells: () => ["old"], hears: () => heard.push("old") })
  all[0]!.has<string>("own", { tells: () => ["new"], hears: () => heard.push("new") })
  const wholes = async () => {
    const found: string[][] = []
    hub.wholes((_, told) =>
      found.push((deserialize(told) as { word: string[] }[]).flatMap(({ word }) => word)),
    )
    await expect.poll(() => found.length).toBe(3)
    return found
  }
  expect(await wholes()).toEqual([["same", "old", "new"], [], []])
  stop()
  expect(await wholes()).toEqual([["same", "new"], [], []])
  await expect.poll(() => heard.length).toBeGreaterThan(0)
  expect(heard).not.toContain("old")
})
