/** What is kept of responses: within bounds, each tenant its own, conversations as long as anything goes on from them. */
import fc from "fast-check"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import { testServer } from "../testing.ts"
import type { ResponseObject } from "./format.ts"
import type { StoredItem } from "./schema.ts"
import { NO_CONVERSATION, ResponseStore } from "./store.ts"

const said = (id: string, text: string): StoredItem => ({ type: "message", role: "user", id, content: text })
const response = (id: string, text: string): ResponseObject => ({
  ...{ id, object: "response" },
  output: [said(`out_${id}`, text)],
})

describe("the store", () => {
  it("knows a conversation after its beginning was deleted, and forgets it with the last that needs it", () => {
    const store = new ResponseStore()
    store.add("a", NO_CONVERSATION, [said("1", "one")], response("r1", "ONE"))
    store.add("a", store.conversation("a", "r1")!, [said("2", "two")], response("r2", "TWO"))
    expect(store.delete("a", "r1")).toBe(true)
    expect(store.get("a", "r1")).toBeNull()
    expect(store.item("a", "out_r1")).toBeNull()
    expect(store.conversation("a", "r2")!.items.map(({ id }) => id)).toEqual(["1", "out_r1", "2", "out_r2"])
    expect(store.input("a", "r2")!.map(({ id }) => id)).toEqual(["1", "out_r1", "2"])
    expect(store.delete("a", "r2")).toBe(true)
    expect(store.delete("a", "r2")).toBe(false)
    expect(store).toMatchObject({ size: 0, bytes: 0 })
  })

  it("counts what was deleted while its next round was on the way", () => {
    const store = new ResponseStore()
    store.add("a", NO_CONVERSATION, [said("1", "one")], response("r1", "ONE"))
    store.add("a", store.conversation("a", "r1")!, [said("2", "two")], response("r2", "TWO"))
    const before = store.conversation("a", "r2")!
    const { bytes } = store
    store.delete("a", "r1")
    store.delete("a", "r2")
    store.add("a", before, [said("3", "three")], response("r3", "THREE"))
    expect(store.conversation("a", "r3")!.items).toHaveLength(6)
    expect(store.bytes).toBeGreaterThan(bytes - 2100)
    store.delete("a", "r3")
    expect(store.bytes).toBe(0)
  })

  it("lets go of what was used longest ago, of the tenant that holds the most", () => {
    const store = new ResponseStore({ most: 4 })
    for (const id of ["r1", "r2", "r3"])
      store.add("a", NO_CONVERSATION, [said("1", "one")], response(id, "X"))
    store.add("b", NO_CONVERSATION, [said("1", "one")], response("s1", "X"))
    store.get("a", "r1")
    store.add("b", NO_CONVERSATION, [said("1", "one")], response("s2", "X"))
    expect(store.has("a", "r1")).toBe(true)
    expect(store.has("a", "r2")).toBe(false)
    expect(store.has("b", "s1")).toBe(true)
    expect(store.get("b", "r1")).toBeNull()
    expect(store.item("b", "out_r1")).toBeNull()
  })

  it("never holds more than it may, and nothing when it is empty", () => {
    const step = fc.record({
      tenant: fc.constantFrom("a", "b", "c"),
      id: fc.integer({ min: 0, max: 9 }).map((n) => `r${n}`),
      before: fc.integer({ min: -5, max: 9 }).map((n) => `r${n}`),
      deletes: fc.boolean(),
      length: fc.integer({ min: 0, max: 1500 }),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const store = new ResponseStore({ most: 8, mostBytes: 12_000 })
        for (const { tenant, id, before, deletes, length } of steps) {
          if (deletes) store.delete(tenant, id)
          else {
            const conversation = store.conversation(tenant, before) ?? NO_CONVERSATION
            store.add(tenant, conversation, [said("1", "x".repeat(length))], response(id, "ONE"))
          }
          expect(store.size).toBeLessThanOrEqual(8)
          expect(store.bytes).toBeLessThanOrEqual(12_000)
        }
        for (const tenant of ["a", "b", "c"]) for (let n = 0; n < 10; n++) store.delete(tenant, `r${n}`)
        expect(store).toMatchObject({ size: 0, bytes: 0 })
      }),
    )
  })
})

describe("over HTTP", () => {
  const tenancy = {
    tenants: [
      { name: "alice", weight: 1, keys: ["sk-alice"] },
      { name: "bob", weight: 1, keys: ["sk-bob"] },
    ],
  }
  let server: Awaited<ReturnType<typeof testServer>>
  let prompt = ""
  const clientOf = (apiKey: string) => new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 })
  beforeAll(async () => {
    const script = (_: number, given: string) => {
      prompt = given
      return "<think>Hm.</think>Fine."
    }
    server = await testServer({ listen: true, tenancy, fake: { script } })
  })
  afterAll(() => server.close())
  const ask = { model: "fake", store: true }

  it("goes on with a response, by itself, and without what it was instructed before", async () => {
    const alice = clientOf("sk-alice")
    const first = await alice.responses.create({ ...ask, input: "One?", instructions: "Once." })
    const second = await alice.responses.create({ ...ask, input: "Two?", previous_response_id: first.id })
    expect(prompt).not.toContain("Once.")
    expect(prompt).toMatch(/user\nOne\?\nassistant\nFine\.\nuser\nTwo\?\nassistant\n$/)
    expect(second.previous_response_id).toBe(first.id)
    const items = await alice.responses.inputItems.list(second.id, { order: "asc", limit: 2 })
    const all: OpenAI.Responses.ResponseItem[] = []
    for await (const item of items) all.push(item)
    expect(all.map((item) => item.type)).toEqual(["message", "reasoning", "message", "message"])
    const { data } = await alice.responses.inputItems.list(second.id)
    expect(data[0]).toMatchObject({ role: "user", content: [{ type: "input_text", text: "Two?" }] })
  })

  it("computes only what is new of the next round", async () => {
    const alice = clientOf("sk-alice")
    const first = await alice.responses.create({ ...ask, input: "One ".repeat(50) })
    const next = await alice.responses.create({ ...ask, input: "Two?", previous_response_id: first.id })
    expect(next.usage!.input_tokens_details.cached_tokens).toBeGreaterThan(100)
  })

  it("gives one back as it was, until it is deleted", async () => {
    const alice = clientOf("sk-alice")
    const made = await alice.responses.create({ ...ask, input: "One?" })
    const { output_text: _, ...kept } = await alice.responses.retrieve(made.id)
    const { output_text: __, ...told } = made
    expect(kept).toEqual(told)
    // As OpenAI's client for Python does it: with the type of a body that there is not.
    const headers = { authorization: "Bearer sk-alice", "content-type": "application/json" }
    const deleted = await fetch(`${server.url}/v1/responses/${made.id}`, { method: "DELETE", headers })
    expect([deleted.status, await deleted.json()]).toMatchObject([200, { deleted: true }])
    await expect(alice.responses.retrieve(made.id)).rejects.toMatchObject({ status: 404 })
    await expect(alice.responses.delete(made.id)).rejects.toMatchObject({ status: 404 })
  })

  it("keeps a streamed one, and none with store: false", async () => {
    const alice = clientOf("sk-alice")
    const streamed = await alice.responses.stream({ ...ask, input: "One?" }).finalResponse()
    expect(await alice.responses.retrieve(streamed.id)).toMatchObject({ output: [{}, {}] })
    const unkept = await alice.responses.create({ ...ask, input: "One?", store: false })
    expect(unkept).toHaveProperty("store", false)
    await expect(alice.responses.retrieve(unkept.id)).rejects.toMatchObject({
      ...{ status: 404, code: "response_not_found" },
    })
  })

  it("knows items of answers by their names", async () => {
    const alice = clientOf("sk-alice")
    const { output } = await alice.responses.create({ ...ask, input: "One?" })
    const [id] = output.flatMap((item) => (item.type === "message" ? item.id : []))
    const input = [
      { role: "user" as const, content: "One?" },
      { type: "item_reference" as const, id: id! },
      { role: "user" as const, content: "Two?" },
    ]
    await alice.responses.create({ ...ask, input })
    expect(prompt).toMatch(/assistant\nFine\.\nuser\nTwo\?/)
    await expect(clientOf("sk-bob").responses.create({ ...ask, input })).rejects.toMatchObject({
      ...{ status: 404, param: "input[1].id", code: "response_item_not_found" },
    })
  })

  test("another tenant's is not there", async () => {
    const { id } = await clientOf("sk-alice").responses.create({ ...ask, input: "One?" })
    const { responses } = clientOf("sk-bob")
    for (const refused of [
      () => responses.retrieve(id),
      () => responses.delete(id),
      () => responses.inputItems.list(id),
      () => responses.create({ ...ask, input: "Two?", previous_response_id: id }),
    ])
      await expect(refused()).rejects.toMatchObject({ status: 404, code: "response_not_found" })
    await expect(clientOf("sk-eve").responses.retrieve(id)).rejects.toMatchObject({ status: 401 })
  })

  test("two requests of one id are two responses", async () => {
    const alice = clientOf("sk-alice")
    const headers = { "x-request-id": "mine" }
    const one = await alice.responses.create({ ...ask, input: "One?" }, { headers })
    const two = await alice.responses.create({ ...ask, input: "Two?" }, { headers })
    expect(one.id).toBe("resp_mine")
    expect(two.id).not.toBe(one.id)
  })

  test.each([
    ["limit=0", "limit"],
    ["order=up", "order"],
    ["after=none", "after"],
    ["stream=true", "stream"],
  ])("?%s is a 400", async (query, param) => {
    const { id } = await clientOf("sk-alice").responses.create({ ...ask, input: "One?" })
    const headers = { authorization: "Bearer sk-alice" }
    const answer = await server.app.inject({ url: `/v1/responses/${id}/input_items?${query}`, headers })
    expect(answer.statusCode).toBe(400)
    expect(answer.json().error.param).toBe(param)
  })
})
