/** Rounds of a session and prompts that begin alike find the endpoint that has seen them. */
import { expect, it } from "vitest"
import { defaultSloClasses } from "../../config/slo-classes.ts"
import { Affinity } from "./affinity.ts"
import { readAsk } from "./ask.ts"

const [A, B, C] = ["a:1", "b:1", "c:1"]
const CLASSES = defaultSloClasses()
const SYSTEM = { role: "system", content: "Answer as a pirate would. ".repeat(200) }

function chat(messages: object[], session?: string, fairness = "one") {
  const body = Buffer.from(JSON.stringify({ model: "m", messages, slo: { session } }))
  const headers = {
    ...{ ":method": "POST", ":path": "/v1/chat/completions" },
    "x-llm-d-inference-fairness-id": fairness,
  }
  return readAsk(headers, body, CLASSES, { arrivalUs: 0, followed: true })
}

it("asks first where prompts that begin alike were sent", () => {
  const affinity = new Affinity()
  affinity.sent(chat([SYSTEM, { role: "user", content: "Hello" }]), B)
  const same = chat([SYSTEM, { role: "user", content: "What time is it?" }])
  expect(affinity.order(same, [A, B, C])).toEqual([B, A, C])
  const other = chat([{ role: "system", content: "Answer briefly. ".repeat(200) }])
  expect(affinity.order(other, [A, B, C])).toEqual([A, B, C])
  expect(affinity.order(same, [A, C])).toEqual([A, C])
})

it("tells models and tools apart", () => {
  const affinity = new Affinity()
  const asked = chat([SYSTEM])
  affinity.sent(asked, B)
  expect(affinity.order({ ...asked, model: "n" }, [A, B])).toEqual([A, B])
  expect(affinity.order({ ...asked, fields: { ...asked.fields, tools: [{}] } }, [A, B])).toEqual([A, B])
})

it("returns a session to its home, of its tenant alone", () => {
  const affinity = new Affinity()
  affinity.sent(chat([], "s"), C)
  expect(affinity.order(chat([], "s"), [A, B, C])).toEqual([C, A, B])
  expect(affinity.order(chat([], "s", "two"), [A, B, C])).toEqual([A, B, C])
})

it("counts on nothing that an endpoint had before it failed", () => {
  const affinity = new Affinity()
  const asked = chat([SYSTEM])
  affinity.sent(asked, B)
  affinity.forget(B)
  expect(affinity.order(asked, [A, B])).toEqual([A, B])
  affinity.sent(asked, B)
  expect(affinity.order(asked, [A, B])).toEqual([B, A])
})
