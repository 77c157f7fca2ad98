/** What is too large is refused as it comes, by its name, and what is just small enough is not. */
import { connect } from "node:net"
import { Readable } from "node:stream"
import fc from "fast-check"
import { afterAll, beforeAll, describe, expect, it, test } from "vitest"
import { UserError } from "../errors.ts"
import { SharedBound } from "../serve/shared-bound.ts"
import { type BodyMemory, readBody } from "./body-reader.ts"
import { BodyScanner } from "./body-scanner.ts"
import { bodyLimits, MOST_DEPTH, MOST_NAME_BYTES, MOST_NUMBER_CHARACTERS } from "./limits.ts"
import { testServer } from "./testing.ts"

const SIZES = { contextTokens: 1024, longestTokenBytes: 13 }
const PROMPT_BYTES = SIZES.contextTokens * SIZES.longestTokenBytes

/** The complaint about a body that comes in pieces of so many bytes, or null. */
function complaint(text: string, step = 1000): UserError | null {
  const scanner = new BodyScanner(SIZES)
  const bytes = Buffer.from(text)
  try {
    for (let at = 0; at < bytes.length; at += step) scanner.push(bytes.subarray(at, at + step))
    return null
  } catch (error) {
    if (error instanceof UserError) return error
    throw error
  }
}

const times = (count: number, entry: string) => Array(count).fill(entry).join()
const names = (count: number, from = "f") => Array.from({ length: count }, (_, i) => `"${from}${i}":0`).join()
const nested = (levels: number) => `{"x":${"[".repeat(levels)}${"]".repeat(levels)}}`
const message = (content: string) => `{"messages":[{"role":"u","content":${content}}]}`

/** For each limit: a body that is just small enough, one that is just too large, what is told of it. */
const EDGES: [string, (more: 0 | 1) => string, RegExp][] = [
  ["fields of the body", (more) => `{${names(256 + more)}}`, /body: it has more than 256 fields/],
  [
    "entries in all",
    (more) => `{"x":[${times(11, `[${times(9000, "0")}]`)},[${times(987 + more, "0")}]]}`,
    /body: it has more than 100000 entries and fields in all/,
  ],
  [
    "text in all",
    (more) => `{"x":"${"a".repeat(2 ** 20 - 1 + more)}"}`,
    /body: its texts come to more than 1048576/,
  ],
  [
    "messages",
    (more) => `{"messages":[${times(4096 + more, "{}")}]}`,
    /'messages': it has more than 4096 entries/,
  ],
  [
    "parts",
    (more) => message(`[${times(1024 + more, "{}")}]`),
    /'messages\[0\]\.content': it has more than 1024/,
  ],
  [
    "calls",
    (more) => `{"messages":[{},{"tool_calls":[${times(256 + more, "{}")}]}]}`,
    /'messages\[1\]\.tool_calls': it has more than 256/,
  ],
  [
    "parts of an item",
    (more) => `{"input":[{"content":[${times(1024 + more, "{}")}]}]}`,
    /'input\[0\]\.content': it has more than 1024/,
  ],
  ["blocks", (more) => `{"system":[${times(1024 + more, "{}")}]}`, /'system': it has more than 1024 entries/],
  [
    "stop sequences",
    (more) => `{"stop_sequences":[${times(16 + more, '"a"')}]}`,
    /'stop_sequences': it has more than 16 entries/,
  ],
  ["tools", (more) => `{"tools":[${times(256 + more, "{}")}]}`, /'tools': it has more than 256 entries/],
  ["tokens", (more) => `{"tokens":[${times(1024 + more, "7")}]}`, /'tokens': it has more than 1024 entries/],
  ["stops", (more) => `{"stop":[${times(16 + more, '"a"')}]}`, /'stop': it has more than 16 entries/],
  [
    "biases",
    (more) => `{"logit_bias":{${names(1024 + more, "")}}}`,
    /'logit_bias': it has more than 1024 fields/,
  ],
  ["depth", (more) => nested(MOST_DEPTH - 1 + more), /nested more than 160 levels/],
  [
    "other arrays",
    (more) => `{"x":{"y":[${times(10_000 + more, "0")}]}}`,
    /'x\.y': it has more than 10000 entries/,
  ],
  [
    "names of fields",
    (more) => `{"${"n".repeat(MOST_NAME_BYTES + more)}":0}`,
    /body: a field's name in it is longer than 1000 bytes/,
  ],
  [
    "numbers",
    (more) => `{"n":${"1".repeat(MOST_NUMBER_CHARACTERS + more)}}`,
    /'n': it has more than 1100 characters/,
  ],
  [
    "fields in all",
    (more) => `{"x":[${times(29, `{${names(1000)}}`)},{${names(999 + more)}}]}`,
    /the body has more than 30000 fields/,
  ],
]
/** The same for the prompt, where it is the context that is too short. */
const PROMPTS: [string, (more: 0 | 1) => string, string][] = [
  ["a message", (more) => message(`"${"a".repeat(PROMPT_BYTES - 1 + more)}"`), "messages"],
  [
    "several messages",
    (more) =>
      `{"messages":[{"content":"${"a".repeat(PROMPT_BYTES - 9)}"},{"content":"${"b".repeat(9 + more)}"}]}`,
    "messages",
  ],
  [
    "escapes, which count as one",
    (more) => message(`"${"\\u00e9\\n".repeat((PROMPT_BYTES - 2) / 2 + more)}"`),
    "messages",
  ],
  ["instructions", (more) => `{"instructions":"${"a".repeat(PROMPT_BYTES + more)}"}`, "instructions"],
  ["a text", (more) => `{"prompt":"${"a".repeat(PROMPT_BYTES + more)}"}`, "prompt"],
  ["one of two texts", (more) => `{"prompt":["${"a".repeat(PROMPT_BYTES + more)}","b"]}`, "prompt[0]"],
  ["token ids", (more) => `{"prompt":[${times(1024 + more, "7")}]}`, "prompt"],
  [
    "the second of two lists of token ids",
    (more) => `{"prompt":[[1],[${times(1024 + more, "7")}]]}`,
    "prompt[1]",
  ],
  ["token ids to embed", (more) => `{"input":[${times(2048 + more, "7")}]}`, "input"],
  ["one of two texts to embed", (more) => `{"input":["${"a".repeat(PROMPT_BYTES + more)}","b"]}`, "input[0]"],
]

describe("limits", () => {
  test.each(EDGES)("%s", (_, body, message) => {
    expect(complaint(body(0))).toBeNull()
    const error = complaint(body(1))
    expect(error?.message).toMatch(message)
    expect(error?.code).toBe("invalid_value")
    expect(error?.message).toMatch(/: [a-z][^:]+\.$/)
  })

  test.each(PROMPTS)("the prompt: %s", (_, body, param) => {
    expect(complaint(body(0))).toBeNull()
    expect(complaint(body(1))).toMatchObject({ code: "context_length_exceeded", param })
  })

  it("every row of the table has been tried", () => {
    const tried = [...EDGES.map(([, body]) => body(1)), ...PROMPTS.map(([, body]) => body(1))].map(
      (body) => complaint(body)?.param?.replace(/\[\d+\]/g, "[]") ?? "",
    )
    for (const { at } of bodyLimits(SIZES)) expect(tried).toContain(at)
  })

  it("texts of a prompt do not count for the rest, nor those of an earlier field", () => {
    const half = "a".repeat(PROMPT_BYTES / 2)
    const rest = "b".repeat(2 ** 20 - 100)
    expect(
      complaint(`{"x":"${rest}","messages":[{"content":"${half}"}],"prompt":["${half}"],"y":"b"}`),
    ).toBeNull()
    expect(
      complaint(`{"x":"${rest}","messages":[{"content":"${half}"}],"y":"${"b".repeat(100)}"}`),
    ).not.toBeNull()
  })

  it.each(['{"__proto__":{}}', '{"a":[{"__pr\\u006fto__":1}]}'])("%s", (body) => {
    expect(complaint(body)?.message).toMatch(/'(a\[0\]\.)?__proto__': a field must not have this name/)
  })
})

describe("the scanner", () => {
  it("says the same however the bytes come", () => {
    const bodies = fc.oneof(
      fc.json().map((text) => `{"messages":${text}}`),
      fc.constantFrom(
        ...EDGES.flatMap(([, body]) => [body(0), body(1)]).filter((body) => body.length < 20_000),
      ),
      fc.string({ unit: fc.constantFrom(...'{}[],:"\\u1 é') }),
      fc.constantFrom('{}{"a":1}', '{}}"a"', '1,"a"', ']{"a":{"b":2}}'),
    )
    fc.assert(
      fc.property(bodies, fc.integer({ min: 1, max: 40 }), (body, step) => {
        expect(complaint(body, step)?.message).toBe(complaint(body, 1e6)?.message)
      }),
    )
  })

  it("lets all JSON pass that is small", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 20 }), (text) => {
        // The one name that is refused.
        fc.pre(!text.includes('"__proto__"'))
        expect(complaint(text, 7)).toBeNull()
      }),
    )
  })
})

describe("over a socket", () => {
  let server: Awaited<ReturnType<typeof testServer>>
  beforeAll(async () => {
    server = await testServer({ listen: true, fake: { outputTokens: 300 } })
  })
  afterAll(() => server.close())

  const post = (body: string, url = "/v1/chat/completions") =>
    fetch(server.url + url, { method: "POST", headers: { "content-type": "application/json" }, body })

  test.each(EDGES)("%s", async (_, body, message) => {
    const answer = await post(body(1))
    const { error } = (await answer.json()) as { error: { message: string } }
    expect(answer.status).toBe(400)
    expect(error.message).toMatch(message)
  })

  it("keeps a stream going beside megabytes of each wrong kind, and its answer whole", async () => {
    const stream = post(
      '{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":300,"ignore_eos":true}',
    )
    const huge = [
      `{"messages":[${times(400_000, "[]")}]}`,
      `{"messages":[${times(100_000, '{"role":"user","content":""}')}]}`,
      `{"logit_bias":{${names(100_000)}}}`,
      `{"prompt":"${"a".repeat(4e6)}"}`,
      `{"prompt":${"[".repeat(4e6)}`,
    ]
    const answers = await Promise.all([...huge, ...huge].map((body) => post(body)))
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 400))
    const lines = (await (await stream).text()).split("\n\n").filter((line) => line !== "")
    expect(lines.at(-1)).toBe("data: [DONE]")
    expect(lines.length).toBe(300 + 3)
  })

  it("reads a body that comes byte by byte", async () => {
    const body = '{"prompt":"a","max_tokens":1}'
    const chunks = [...body].map((byte) => `1\r\n${byte}\r\n`).join("")
    const head =
      "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1")
    socket.write(`${head}transfer-encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`)
    let answer = ""
    for await (const bytes of socket) answer += String(bytes)
    expect(answer).toMatch(/^HTTP\/1\.1 200 /)
  })
})

describe("memory of bodies", () => {
  const MOST = 1_000_000
  const options = { bodyLimit: MOST, contentLength: Number.NaN, sizes: SIZES }
  const read = (memory: BodyMemory, source: AsyncGenerator<Buffer>) =>
    readBody(Readable.from(source, { objectMode: false }), { ...options, memory }, (body) => body.length)
  async function* blanks(bytes: number) {
    for (let left = bytes; left > 0; left -= 10_000) yield Buffer.alloc(Math.min(left, 10_000), " ")
  }

  it("is bounded over all of them, and given back", async () => {
    const memory = new SharedBound(MOST)
    const all = await Promise.allSettled(Array.from({ length: 6 }, () => read(memory, blanks(400_000))))
    const refused = all.flatMap((one) => (one.status === "rejected" ? [one.reason.code] : []))
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.length).toBeLessThan(6)
    expect(new Set(refused)).toEqual(new Set(["too_many_large_bodies"]))
    expect(await read(memory, blanks(900_000))).toBe(900_000)
    expect(memory.take(MOST)).toBe(true)
    expect(memory.take(1)).toBe(false)
  })

  it("is given back for a body that breaks off", async () => {
    const memory = new SharedBound(MOST)
    const broken = async function* () {
      yield Buffer.alloc(1000)
      throw new Error("gone")
    }
    await expect(read(memory, broken())).rejects.toMatchObject({ status: 400 })
    expect(memory.take(MOST)).toBe(true)
  })
})
