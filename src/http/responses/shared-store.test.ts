/** Responses that several processes keep together. */
import { expect, test } from "vitest"
import { linked } from "../../siblings/testing.ts"
import type { ResponseObject } from "./format.ts"
import type { StoredItem } from "./schema.ts"
import { keepTogether, SharedResponses } from "./shared-store.ts"
import { NO_CONVERSATION, ResponseStore } from "./store.ts"

const said = (id: string): StoredItem => ({ type: "message", role: "user", id, content: id })
const response = (id: string): ResponseObject => ({
  ...{ id, object: "response" },
  output: [said(`out_${id}`)],
})

function stores() {
  const { hub, all } = linked(2)
  const store = new ResponseStore()
  keepTogether(hub, store)
  const [one, other] = all.map((sibling) => new SharedResponses(sibling, true))
  return { store, one: one!, other: other! }
}

test("what one keeps the other has: a response, its items, the conversation, and its end", async () => {
  const { one, other } = stores()
  await one.add("a", NO_CONVERSATION, [said("1")], response("r1"))
  expect(await other.get("a", "r1")).toEqual(response("r1"))
  expect(await other.get("b", "r1")).toBeNull()
  expect(await other.has("a", "r1")).toBe(true)
  expect(await other.item("a", "out_r1")).toEqual(said("out_r1"))
  const before = await other.conversation("a", "r1")
  await other.add("a", before!, [said("2")], response("r2"))
  expect((await one.conversation("a", "r2"))!.items.map(({ id }) => id)).toEqual([
    "1",
    "out_r1",
    "2",
    "out_r2",
  ])
  expect((await one.input("a", "r2"))!.map(({ id }) => id)).toEqual(["1", "out_r1", "2"])
  expect(await one.delete("a", "r2")).toBe(true)
  expect(await other.delete("a", "r2")).toBe(false)
  expect(await other.conversation("a", "r2")).toBeNull()
})

test("a conversation is whole where its beginning was let go of while the answer was on its way", async () => {
  const { one, other, store } = stores()
  await one.add("a", NO_CONVERSATION, [said("1")], response("r1"))
  const before = await other.conversation("a", "r1")
  await one.delete("a", "r1")
  await other.add("a", before!, [said("2")], response("r2"))
  expect((await one.conversation("a", "r2"))!.items.map(({ id }) => id)).toEqual([
    "1",
    "out_r1",
    "2",
    "out_r2",
  ])
  await one.delete("a", "r2")
  expect(store).toMatchObject({ size: 0, bytes: 0 })
})

test("what one has just told is found by the other, though its question is there first", async () => {
  const { hub, all } = linked(2)
  keepTogether(hub, new ResponseStore())
  const other = new SharedResponses(all[1]!, true)
  const asked = other.get("a", "r1")
  // Nothing of the first one's is read before its answer to what all are asked.
  const one = new SharedResponses(all[0]!, true)
  const added = one.add("a", NO_CONVERSATION, [said("1")], response("r1"))
  expect(await asked).toEqual(response("r1"))
  await added
})

/** Two gateways, the first of two processes, which ask each other. */
function gateways() {
  const both = [2, 1].map((count) => ({ ...linked(count), store: new ResponseStore() }))
  for (const [i, { hub, store }] of both.entries()) {
    keepTogether(hub, store)
    const ask = async (what: string, asked: unknown) => {
      const answer = await both[1 - i]!.hub.answerElsewhere(what, structuredClone(asked))
      return answer === null ? [] : [structuredClone(answer)]
    }
    hub.elsewhere = { ask, say() {}, again() {}, told() {}, left() {} }
  }
  const [one, other] = both.map(({ all }) => new SharedResponses(all.at(-1)!, true))
  return { one: one!, other: other!, both }
}

test("what another gateway keeps is found, gone on with, and deleted from here", async () => {
  const { one, other, both } = gateways()
  await one.add("a", NO_CONVERSATION, [said("1")], response("r1"))
  expect(await other.get("a", "r1")).toEqual(response("r1"))
  expect(await other.get("b", "r1")).toBeNull()
  expect(await other.item("a", "out_r1")).toEqual(said("out_r1"))
  expect((await other.input("a", "r1"))!.map(({ id }) => id)).toEqual(["1"])
  const before = await other.conversation("a", "r1")
  await other.add("a", before!, [said("2")], response("r2"))
  // It is whole where it goes on.
  expect((await one.conversation("a", "r2"))!.items.map(({ id }) => id)).toEqual([
    "1",
    "out_r1",
    "2",
    "out_r2",
  ])
  expect(both.map(({ store }) => store.size)).toEqual([1, 1])
  expect(await other.delete("a", "r1")).toBe(true)
  expect(await one.get("a", "r1")).toBeNull()
  expect(await other.delete("a", "r1")).toBe(false)
})

test("what another gateway answers and is no answer is none", async () => {
  const { hub, all } = linked(1)
  keepTogether(hub, new ResponseStore())
  let answers: unknown[] = []
  hub.elsewhere = { ask: async () => answers, say() {}, again() {}, told() {}, left() {} }
  const store = new SharedResponses(all[0]!, true)
  answers = [7, { id: "another" }, { id: "r1", object: "response" }]
  expect(await store.get("a", "r1")).toEqual({ id: "r1", object: "response" })
  answers = ["r1", { type: "message" }, [7]]
  expect(await store.conversation("a", "r1")).toBeNull()
  answers = ["yes"]
  expect(await store.delete("a", "r1")).toBe(false)
  await expect(hub.answerElsewhere("responses: get", { id: 7 })).rejects.toThrow()
})
