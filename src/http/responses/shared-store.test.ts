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
