/** Tokens are counted however the bytes are cut, and usage is read where there is some. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { AnswerReader } from "./answer-reader.ts"
import type { Sent } from "./chooser.ts"

function listener() {
  const seen = { tokens: 0, usage: [] as number[][] }
  const sent: Sent = {
    servedBy: () => {},
    tokens: (count) => void (seen.tokens += count),
    usage: (...counts) => void seen.usage.push(counts),
    ended: () => {},
  }
  return { seen, sent }
}

const event = (fields: object) => `data: ${JSON.stringify(fields)}\n\n`
const USAGE = { prompt_tokens: 9, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 4 } }
const STREAM = [
  event({ choices: [{ delta: { content: "Grüße" } }] }),
  ": a comment\n\n",
  event({ choices: [{ delta: { content: "[x]" } }] }),
  event({ choices: [], usage: USAGE }),
  "data: [DONE]\n\n",
].join("")

it("counts events however the stream is cut", () => {
  const bytes = Buffer.from(STREAM)
  fc.assert(
    fc.property(fc.array(fc.nat(bytes.length)), (cuts) => {
      const { seen, sent } = listener()
      const reader = new AnswerReader(sent, "text/event-stream; charset=utf-8")
      const places = [0, ...cuts.sort((a, b) => a - b), bytes.length]
      for (let i = 1; i < places.length; i++) reader.read(bytes.subarray(places[i - 1], places[i]), 0)
      reader.end(0)
      expect(seen).toEqual({ tokens: 2, usage: [[9, 4, 2]] })
    }),
  )
})

it("reads the usage of an answer in one piece", () => {
  const { seen, sent } = listener()
  const reader = new AnswerReader(sent, "application/json")
  const text = JSON.stringify({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 7 } })
  reader.read(Buffer.from(text.slice(0, 20)), 0)
  reader.read(Buffer.from(text.slice(20)), 0)
  expect(seen.tokens).toBe(0)
  reader.end(0)
  expect(seen).toEqual({ tokens: 7, usage: [[3, 0, 7]] })
})

it.each([
  "not JSON",
  "null",
  '{"usage":null}',
  '{"usage":"much"}',
  '{"usage":{"prompt_tokens":-1,"completion_tokens":"x"}}',
])("ignores %s", (text) => {
  const { seen, sent } = listener()
  const reader = new AnswerReader(sent, "application/json")
  reader.read(Buffer.from(text), 0)
  reader.end(0)
  expect(seen.tokens).toBe(0)
  expect(seen.usage.flat().every((count) => count === 0)).toBe(true)
})

it("keeps no more than it may of an answer without an end", () => {
  const { seen, sent } = listener()
  const reader = new AnswerReader(sent, "text/event-stream")
  for (let i = 0; i < 40; i++) reader.read(Buffer.alloc(60_000, "x"), 0)
  reader.read(Buffer.from(`\n${event({ choices: [{}] })}`), 0)
  expect(seen.tokens).toBe(0)
})
