/** Readers of published traces: every format's good lines, its malformed ones by place, sessions and prefixes. */
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { describe, expect, test } from "vitest"
import { UserError } from "../errors.ts"
import { sessionsOf } from "./sessions.ts"
import { parseTrace, readTrace } from "./trace.ts"

const UNSCALED = { scale: 1, maxSequenceTokens: 8192 }
const folder = mkdtempSync(join(tmpdir(), "traces-"))

function file(name: string, content: string | Buffer): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const mooncake = (input: number, output: number, ids: number[] = []) =>
  JSON.stringify({ timestamp: 7, input_length: input, output_length: output, hash_ids: ids })

describe("files", () => {
  test("Azure CSV with 100 ns digits, any order", () => {
    const text =
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.9799600,4808,10\n"
    const { rows } = parseTrace(text, "azure.csv")
    expect(rows.map((row) => [row.promptTokens, row.outputTokens])).toEqual([
      [4808, 10],
      [3180, 8],
    ])
    expect(rows[1]!.atMs).toBeCloseTo(52, 6)
  })

  test("length CSV with columns to spare", () => {
    const text = "num_prefill_tokens,num_decode_tokens,num_total_tokens\n3772,54,3826\n"
    expect(parseTrace(text, "l.csv").rows).toEqual([{ promptTokens: 3772, outputTokens: 54 }])
  })

  test("BurstGPT: seconds, failed requests left out and counted", () => {
    const text =
      "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" +
      "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n118.5,GPT-4,417,276,693,API log\n"
    const { rows, skipped } = parseTrace(text, "b.csv")
    expect(rows).toEqual([
      { promptTokens: 472, outputTokens: 18, atMs: 0 },
      { promptTokens: 417, outputTokens: 276, atMs: 113_500 },
    ])
    expect(skipped).toEqual({ empty: 1, cut: 0 })
  })

  test("Mooncake: ms, blocks of 512 tokens by name", () => {
    const text =
      '{"timestamp": 7, "input_length": 1300, "output_length": 5, "hash_ids": [46, 47, 48]}\n\n' +
      '{"timestamp": 3059, "input_length": 700, "output_length": 9, "hash_ids": [46, 99]}\n'
    expect(parseTrace(text, "m.jsonl").rows).toEqual([
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
    const trace = parseTrace(lines.join("\n"), "q.jsonl")
    expect(trace.rows[0]!.prefix).toEqual({ blockTokens: 16, ids: [0, 1, 2, 3, 4, 5, 6] })
    const sessions = sessionsOf(trace, UNSCALED)
    expect(sessions.map(({ atMs, rounds }) => [atMs, ...rounds.map((r) => r.promptTokens)])).toEqual([
      [0, 100, 30, 5],
      [11_000, 160],
      [12_000, 50],
      [13_000, 60],
    ])
    expect(sessions[0]!.rounds[1]).toEqual({ promptTokens: 30, outputTokens: 30, delayMs: 5500 })
  })

  test("a hash of a block alone does not make different prompts equal", () => {
    const line = (ids: number[]) =>
      JSON.stringify({ timestamp: 0, input_length: 32, output_length: 1, hash_ids: ids })
    const { rows } = parseTrace(
      [
        [1, 2],
        [3, 2],
        [1, 2],
        [3, 2],
      ]
        .map(line)
        .join("\n"),
      "m.jsonl",
    )
    const ids = rows.map(({ prefix }) => prefix!.ids)
    expect(ids[0]).toEqual(ids[2])
    expect(ids[1]).toEqual(ids[3])
    expect(ids[1]![1]).not.toBe(ids[0]![1])
  })

  test("what is beyond the sequence limit after scaling is left out", () => {
    const trace = parseTrace("num_prefill_tokens,num_decode_tokens\n8000,192\n8000,193\n40000,160\n", "l.csv")
    expect(sessionsOf(trace, UNSCALED)).toHaveLength(1)
    expect(sessionsOf(trace, { ...UNSCALED, scale: 8 })).toHaveLength(3)
  })

  test.each([
    ["num_prefill_tokens,num_decode_tokens\r\n20,5\r\n30,0\r\n0,4\r\n40,6\r\n7", "csv"],
    ["num_prefill_tokens,num_decode_tokens\n20,5\n30,0\n0,4\n\n40,6\n7,", "csv"],
    [
      [mooncake(20, 5), mooncake(30, 0), mooncake(0, 4), mooncake(40, 6), mooncake(7, 8).slice(0, 30)].join(
        "\n",
      ),
      "jsonl",
    ],
  ])("rows of no tokens and a last line cut off are skipped and counted: %j", (text, ending) => {
    const { rows, skipped } = parseTrace(text, `t.${ending}`)
    expect(rows.map((row) => [row.promptTokens, row.outputTokens])).toEqual([
      [20, 5],
      [40, 6],
    ])
    expect(skipped).toEqual({ empty: 2, cut: 1 })
  })

  test("a file in many pieces reads as in one, gzipped, cut off or plain; errors keep their line", () => {
    const lines = Array.from({ length: 60_000 }, (_, i) => mooncake(20 + (i % 7), 5, [i % 9, 10 + (i % 900)]))
    const text = `\uFEFF${lines.join("\r\n")}\n`
    const whole = parseTrace(text.slice(1), "m.jsonl").rows
    expect(text.length).toBeGreaterThan(4 << 20)
    const packed = gzipSync(text)
    expect(readTrace(file("m.jsonl", text)).rows).toEqual(whole)
    expect(readTrace(file("m.jsonl.gz", packed)).rows).toEqual(whole)
    const cut = readTrace(file("cut.gz", packed.subarray(0, packed.length >> 1)))
    expect(cut.rows.length).toBeGreaterThan(10_000)
    expect(cut.rows).toEqual(whole.slice(0, cut.rows.length))
    const csv = (last: string) =>
      `num_prefill_tokens,num_decode_tokens,${"x".repeat(30)}\n${"20,5,0123456789012345678901234\n".repeat(70_000)}${last}\n`
    expect(readTrace(file("l.csv", csv("1,2,3"))).rows).toHaveLength(70_001)
    expect(() => readTrace(file("l.csv", csv("1,-2,3")))).toThrow("l.csv:70002: num_decode_tokens is")
    expect(() => readTrace(file("l.csv", csv("1,2")))).toThrow("l.csv:70002: Invalid Record Length")
  })

  test.each([
    ["none.csv", undefined, /^cannot read .*none\.csv: no such file$/],
    ["broken.gz", Buffer.from([0x1f, 0x8b, 9, 9, 9, 9]), /^cannot read .*broken\.gz: /],
    [".", undefined, /^cannot read .*EISDIR/],
  ])("%s cannot be read and says so", (name, bytes, message) => {
    const path = bytes === undefined ? join(folder, name) : file(name, bytes)
    expect(() => readTrace(path)).toThrow(UserError)
    expect(() => readTrace(path)).toThrow(message)
  })

  test.each([
    [
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,12,x\n",
      'f.csv:2: GeneratedTokens is "x"',
    ],
    ["TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,12,3\n", "f.csv:2: TIMESTAMP"],
    ["TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,12\n", "f.csv:2: Invalid Record Length"],
    ["a,b\n1,2\n", "f.csv:1: unknown columns a,b"],
    ["", "no requests"],
    [
      "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,-1\n",
      'f.csv:2: Response tokens is "-1"',
    ],
    ["Timestamp,Model,Request tokens,Response tokens\nnoon,ChatGPT,472,1\n", "f.csv:2: Timestamp"],
    [
      "Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,0\n",
      "every request in it has no prompt or no answer",
    ],
    [
      '{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":[]}\n{"timestamp"\n',
      "f.csv:2: not a JSON",
    ],
    ['{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":[]}\n[1]\n', "f.csv:2: not a JSON object"],
    [
      '{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":[]}\n{"timestamp":1,"input_length":2,"hash_ids":[]}',
      "f.csv:2: output_length is missing",
    ],
    ['{"timestamp":1,"input_length":2,"output_length":3,"hash_ids":7}', "f.csv:1: hash_ids is 7"],
    [bailian(1, -1, -5, 3, 4), "f.csv:1: timestamp is -5"],
    [bailian(1, -1, 5, -1, 4), "f.csv:1: input_length is -1"],
    [bailian(1, -1, 5, 0, 4), "every request in it has no prompt or no answer"],
    ['{"timestamp":1', "f.csv:1: not a JSON"],
    ['{"a":1}', "f.csv:1: unknown columns a"],
  ])("malformed trace %j is reported by place", (text, message) => {
    expect(() => parseTrace(text, "f.csv")).toThrow(UserError)
    expect(() => parseTrace(text, "f.csv")).toThrow(message)
  })
})
