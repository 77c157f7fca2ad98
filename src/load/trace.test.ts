/** Readers of published traces: every format's good lines, its malformed ones by place, sessions and prefixes. */
import { describe, expect, test } from "vitest"
import { UserError } from "../errors.ts"
import { sessionsOf } from "./sessions.ts"
import { parseTrace } from "./trace.ts"

describe("files", () => {
  test("Azure CSV with 100 ns digits, any order", () => {
    const text =
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.9799600,4808,10\n"
    const rows = parseTrace(text, "azure.csv")
    expect(rows.map((row) => [row.promptTokens, row.outputTokens])).toEqual([
      [4808, 10],
      [3180, 8],
    ])
    expect(rows[1]!.atMs).toBeCloseTo(52, 6)
  })

  test("length CSV with columns to spare", () => {
    const text = "num_prefill_tokens,num_decode_tokens,num_total_tokens\n3772,54,3826\n"
    expect(parseTrace(text, "l.csv")).toEqual([{ promptTokens: 3772, outputTokens: 54 }])
  })

  test("BurstGPT: seconds, failed requests left out", () => {
    const text =
      "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" +
      "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n118.5,GPT-4,417,276,693,API log\n"
    expect(parseTrace(text, "b.csv")).toEqual([
      { promptTokens: 472, outputTokens: 18, atMs: 0 },
      { promptTokens: 417, outputTokens: 276, atMs: 113_500 },
    ])
  })

  test("Mooncake: ms, blocks of 512 tokens by name", () => {
    const text =
      '{"timestamp": 7, "input_length": 1300, "output_length": 5, "hash_ids": [46, 47, 48]}\n\n' +
      '{"timestamp": 3059, "input_length": 700, "output_length": 9, "hash_ids": [46, 99]}\n'
    expect(parseTrace(text, "m.jsonl")).toEqual([
      { atMs: 0, promptTokens: 1300, outputTokens: 5, prefix: { blockTokens: 512, ids: [0, 1, 2] } },
      { atMs: 3052, promptTokens: 700, outputTokens: 9, prefix: { blockTokens: 512, ids: [0, 3] } },
    ])
  })

  const bailian = (chat: number, parent: number, at: number, input: number, output: number) =>
    JSON.stringify({
      chat_id: chat,
      parent_chat_id: parent,
      timestamp: at,
      input_length: input,
      output_length: output,
      type: "text",
      turn: parent < 0 ? 1 : 2,
      hash_ids: Array.from({ length: Math.ceil(input / 16) }, (_, i) => i),
    })

  test("Qwen-Bailian: turns are joined to sessions, rewritten histories and second answers are not", () => {
    const lines = [
      bailian(1, -1, 10, 100, 20),
      bailian(2, 1, 15.5, 150, 30),
      bailian(3, 2, 20, 185, 8),
      bailian(4, 1, 21, 160, 8),
      bailian(5, 3, 22, 50, 8),
      bailian(6, 77, 23, 60, 8),
    ]
    const rows = parseTrace(lines.join("\n"), "q.jsonl")
    expect(rows[0]!.prefix).toEqual({ blockTokens: 16, ids: [0, 1, 2, 3, 4, 5, 6] })
    const sessions = sessionsOf({ path: "q.jsonl", rows })
    expect(sessions.map(({ atMs, rounds }) => [atMs, ...rounds.map((r) => r.promptTokens)])).toEqual([
      [0, 100, 30, 5],
      [11_000, 160],
      [12_000, 50],
      [13_000, 60],
    ])
    expect(sessions[0]!.rounds[1]).toEqual({ promptTokens: 30, outputTokens: 30, delayMs: 5500 })
  })

  test("what is beyond the sequence limit is left out", () => {
    const rows = parseTrace("num_prefill_tokens,num_decode_tokens\n8000,192\n8000,193\n", "l.csv")
    expect(sessionsOf({ path: "l.csv", rows })).toHaveLength(1)
  })

  test.each([
    [
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,12,x\n",
      'f.csv:2: GeneratedTokens is "x"',
    ],
    ["TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,12,3\n", "f.csv:2: TIMESTAMP"],
    ["TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,12\n", "f.csv: "],
    ["a,b\n1,2\n", "f.csv:1: unknown columns a,b"],
    ["", "no requests"],
    [
      "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,-1\n",
      'f.csv:2: Response tokens is "-1"',
    ],
    ["Timestamp,Model,Request tokens,Response tokens\nnoon,ChatGPT,472,1\n", "f.csv:2: Timestamp"],
    ["Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,0\n", "no request in it was answered"],
    ['{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":[]}\n{"timestamp"', "f.csv:2: not a JSON"],
    ['{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":[]}\n[1]', "f.csv:2: not a JSON object"],
    [
      '{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":[]}\n{"timestamp":1,"input_length":2,"hash_ids":[]}',
      "f.csv:2: output_length is missing",
    ],
    ['{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":7}', "f.csv:1: hash_ids is 7"],
    [bailian(1, -1, -5, 3, 4), "f.csv:1: timestamp is -5"],
    [bailian(1, -1, 5, 0, 4), "f.csv:1: input_length is 0"],
    ['{"a":1}', "f.csv:1: unknown columns a"],
  ])("malformed trace %j is reported by place", (text, message) => {
    expect(() => parseTrace(text, "f.csv")).toThrow(UserError)
    expect(() => parseTrace(text, "f.csv")).toThrow(message)
  })
})
