/** All that a gateway has, over real connections: what is taken, and what is not. */
import { afterEach, expect, test } from "vitest"
import { PLACEMENTS } from "../told-placements.ts"
import { openPeersHere, type Talk, talkTo, told, WHOLE_WORDS } from "./testing.ts"

const opened: { close(): unknown }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

const LOAD = "load of 10.0.0.7:8000"

async function listening() {
  const one = await openPeersHere([])
  opened.push(one.peers)
  const heard: [topic: string, words: readonly unknown[], from: number][] = []
  for (const topic of [LOAD, PLACEMENTS])
    one.all[0]!.has(topic, {
      tells: () => [],
      hears: (words, from) => heard.push([topic, words, from]),
    })
  const left: number[] = []
  one.all[0]!.onLeft((from) => left.push(from))
  const end: Talk = await talkTo(one.peers.port)
  opened.push(end)
  return { ...one, heard, left, ...end }
}

const whole = (words: unknown[], more = false, from = 0) => ({
  ...{ type: "whole", from, clockUs: 1, words, more },
})
const load = (word: unknown) => ({ topic: LOAD, word })
const past = (keys: number) => ({
  topic: PLACEMENTS,
  word: [
    [{ session: 1, promptTokens: 9, prefix: Array.from({ length: keys }, (_, i) => i) }, "10.0.0.7:8000", 1],
  ],
})

test("pieces are one, each topic as a whole, also where there is nothing", async () => {
  const { send, heard, peers } = await listening()
  send(whole([load(WHOLE_WORDS.slice(0, 1))], true))
  send(told({ topic: LOAD, word: [] }))
  send(whole([past(3), load(WHOLE_WORDS.slice(1))]))
  await expect.poll(() => heard.length).toBe(2)
  expect(heard.map(([topic, words, from]) => [topic, words.length, from])).toEqual([
    [LOAD, 3, 1],
    [PLACEMENTS, 1, 1],
  ])
  expect(heard[0]![1].map((word) => (word as { id: number }).id)).toEqual([3, 4, 5])
  send(whole([]))
  await expect.poll(() => heard.length).toBe(4)
  expect(heard.slice(2).map(([, words]) => words)).toEqual([[], []])
  expect(peers.counts.connected).toBe(1)
})

test("however often one asks for all, it is told some times a second, and the last time after it asked", async () => {
  const { send, greeted, peers } = await listening()
  for (let i = 0; i < 2000; i++) send({ type: "again" })
  const begun = () => greeted.filter(({ type }) => type === "begins").length
  await expect.poll(begun).toBeGreaterThanOrEqual(2)
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(begun()).toBeLessThan(20)
  const turns = greeted.flatMap((message) => (message.type === "begins" ? [message.turn] : []))
  expect(turns).toEqual(turns.toSorted((a, b) => a - b))
  expect(peers.counts.connected).toBe(1)
})

const [underWay] = WHOLE_WORDS.slice(1) as [object]
test.each<[string, object[]]>([
  ["words that are not of a whole", [whole([load([{ type: "tokens", id: 3, tokens: 1 }])])]],
  ["what only a whole has, told as it comes", [told(load(WHOLE_WORDS))]],
  ["a time that is none", [whole([load([{ ...underWay, sentUs: Number.POSITIVE_INFINITY }])])]],
  ["a first token that is no time", [whole([load([{ ...underWay, firstUs: "now" }])])]],
  ["fewer tokens than none", [whole([load([{ ...underWay, tokens: -1 }])])]],
  ["an id that is another's", [whole([load([{ ...underWay, id: 2 ** 32 }])])]],
  [
    "a place without a time",
    [whole([{ topic: PLACEMENTS, word: [[{ session: 1, promptTokens: 9, prefix: [] }, "a"]] }])],
  ],
  ["a beginning of no process", [{ type: "begins", turn: 2, processes: [-1] }]],
  ["a beginning without a turn", [{ type: "begins", turn: 0, processes: [] }]],
  [
    "more processes than there can be",
    [{ type: "begins", turn: 2, processes: Array.from({ length: 1025 }, (_, i) => i) }],
  ],
  ["a whole without an end", Array.from({ length: 9 }, () => whole([past(2 ** 16)], true))],
  ["wholes of ever other processes", Array.from({ length: 9 }, (_, i) => whole([past(2 ** 16)], true, i))],
  ["a whole of too many requests", [whole([load(Array.from({ length: 2 ** 15 + 1 }, () => underWay))])]],
])("nonsense ends the connection, and what it told is forgotten: %s", async (_, messages) => {
  const { send, ended, heard, left, peers } = await listening()
  send(whole([load(WHOLE_WORDS)]))
  await expect.poll(() => heard.length).toBe(2)
  for (const message of messages) send(message)
  await ended
  await expect.poll(() => peers.counts.connected).toBe(0)
  await expect.poll(() => left).toEqual([1])
  expect(heard).toHaveLength(2)
})
