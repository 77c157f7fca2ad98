/** Objects that look like lists. */
import { expect, test } from "vitest"
import { testServer } from "./testing.ts"

test("an object whose length is no number is a wrong list, not a fault of the server", async () => {
  const server = await testServer()
  const odd = { toString: 1, valueOf: 1, length: -1 }
  for (const length of [odd, { toString: 1, valueOf: 1 }]) {
    const payload = { model: "fake", messages: { length }, max_tokens: 2 }
    const answer = await server.app.inject({ method: "POST", url: "/v1/chat/completions", payload })
    expect([answer.statusCode, answer.json().error.type]).toEqual([400, "invalid_request_error"])
  }
  await server.close()
})
