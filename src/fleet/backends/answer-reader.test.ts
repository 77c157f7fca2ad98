/** Tool calls of engines that stream them in pieces. */
import { describe, expect, test } from "vitest"
import type { CallDelta } from "../../text/tools/parts.ts"
import { AnswerReader, Malformed } from "./answer-reader.ts"

const chunk = (tool_calls: object[]) => JSON.stringify({ choices: [{ index: 0, delta: { tool_calls } }] })
const calls = (chunks: readonly object[][]): CallDelta[] => {
  const reader = new AnswerReader(3)
  return chunks.flatMap((one) => reader.push(chunk(one))?.delta?.toolCalls ?? [])
}

describe("calls", () => {
  test("are told as they come: the name first", () => {
    const pieces = [
      [{ index: 0, id: "a", function: { name: "f", arguments: "" } }],
      [{ index: 0, function: { arguments: '{"a"' } }],
      // Some repeat the name in every chunk.
      [{ index: 0, function: { name: "f", arguments: ": 1}" } }],
      [{ index: 1, id: "b", function: { name: "g", arguments: "{}" } }],
    ]
    expect(calls(pieces)).toEqual([
      { index: 0, name: "f", arguments: "" },
      { index: 0, name: null, arguments: '{"a"' },
      { index: 0, name: null, arguments: ": 1}" },
      { index: 1, name: "g", arguments: "{}" },
    ])
  })

  test("that make no sense are the engine's fault", () => {
    expect(() => calls([[{ index: 1, function: { name: "f" } }]])).toThrow(Malformed)
    expect(() => calls([[{ index: 0, function: { arguments: "{" } }]])).toThrow(Malformed)
  })
})
