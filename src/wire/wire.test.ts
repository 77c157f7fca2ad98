/** Frames stay what they were: other processes, of other versions and in other languages, read them. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { crc32 } from "node:zlib"
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { UserError } from "../errors.ts"
import type { AnswerDelta } from "../text/answer.ts"
import { addDelta, type Deltas, eachDelta, isPlain, noDeltas } from "./deltas.ts"
import { encodeFrame, FrameError, FrameReader, MOST_FRAME_BYTES } from "./frames.ts"
import {
  endFromWire,
  endToWire,
  MessageError,
  observedFromWire,
  observedToWire,
  readToGateway,
  readToReplica,
  type ToGateway,
  WIRE_VERSION,
} from "./messages.ts"
import { TO_GATEWAY, TO_REPLICA } from "./samples.suite.ts"

/** Hexadecimal, a file for each way and version. A new message is added by running with GOLDEN=write; what is there must
 * not change without a new version. */
const file = (way: string) => resolve(import.meta.dirname, `golden/${way}-${WIRE_VERSION}.json`)
const golden = (way: string): Record<string, string> =>
  existsSync(file(way)) ? JSON.parse(readFileSync(file(way), "utf8")) : {}

describe.each([
  ["to-replica", TO_REPLICA, readToReplica],
  ["to-gateway", TO_GATEWAY, readToGateway],
] as const)("%s", (way, samples, read) => {
  if (process.env.GOLDEN === "write") {
    const frames = Object.entries(samples).map(([name, message]) => [
      name,
      encodeFrame(message).toString("hex"),
    ])
    writeFileSync(file(way), `${JSON.stringify(Object.fromEntries(frames), null, 2)}\n`)
  }

  test("there is a golden frame of every sample", () => {
    expect(Object.keys(golden(way))).toEqual(Object.keys(samples))
  })

  test.each(Object.entries(samples))(
    "%s is the frame that it was, and reads as what it says",
    (name, message) => {
      const frame = encodeFrame(message)
      expect(frame.toString("hex")).toBe(golden(way)[name])
      const [decoded] = new FrameReader().push(Buffer.from(golden(way)[name]!, "hex"))
      expect(plain(read(decoded))).toEqual(plain(message))
    },
  )
})

/** Bytes of any kind are the same bytes. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value]
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== "object") return value
  return Object.fromEntries(Object.entries(value).map(([key, of]) => [key, plain(of)]))
}

test("frames are the same however the stream is cut", () => {
  const messages = [...Object.values(TO_GATEWAY), { type: "state", state: "ready", detail: "x".repeat(5000) }]
  const stream = Buffer.concat(messages.map(encodeFrame))
  const whole = new FrameReader().push(stream).map(plain)
  fc.assert(
    fc.property(fc.array(fc.nat(stream.length), { maxLength: 30 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), stream.length]
      const reader = new FrameReader()
      const read = at.slice(1).flatMap((end, i) => reader.push(stream.subarray(at[i], end)))
      expect(read.map(plain)).toEqual(whole)
    }),
    { numRuns: 50 },
  )
})

/** What `encodeFrame` would put before a body of this length. */
function headOf(length: number, body = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(12)
  head.writeUInt32LE(length)
  head.writeUInt32LE(crc32(body), 4)
  head.writeUInt32LE(crc32(head.subarray(0, 8)), 8)
  return head
}

test("a long frame is refused by its length alone", () => {
  const head = headOf(MOST_FRAME_BYTES + 1)
  expect(() => new FrameReader().push(head)).toThrow(FrameError)
  expect(() => encodeFrame({ text: "x".repeat(MOST_FRAME_BYTES) })).toThrow(FrameError)
})

test("no flipped bit passes, nor has it the reader wait for what never comes", () => {
  const frame = encodeFrame({ type: "tokens", id: 1, choice: 0, tokens: [7, 8], delta: null })
  for (let bit = 0; bit < 8 * frame.length; bit++) {
    const wrong = Buffer.from(frame)
    wrong[bit >> 3]! ^= 1 << (bit & 7)
    expect(() => new FrameReader().push(wrong), `bit ${bit}`).toThrow(FrameError)
  }
})

test("bytes at random are an error of the stream, and no other", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (body) => {
      const frame = Buffer.concat([headOf(body.length, Buffer.from(body)), body])
      try {
        for (const message of new FrameReader().push(frame)) readToReplica(message)
      } catch (error) {
        expect(["FrameError", "MessageError"]).toContain((error as Error).name)
      }
    }),
    { numRuns: 500 },
  )
})

test("a message that is not as it should be is named with its field", () => {
  expect(() => readToReplica({ type: "cancel", id: -1 })).toThrow(MessageError)
  expect(() => readToReplica({ type: "cancel", id: -1 })).toThrow(/cancel.*id/)
  expect(() => readToReplica(null)).toThrow(MessageError)
  const slow = structuredClone(TO_REPLICA.submit) as unknown as {
    job: { generation: { slo: { slo: object } } }
  }
  slow.job.generation.slo.slo = { ttftUs: NaN }
  expect(() => readToReplica(slow)).toThrow(/ttftUs/)
})

test("errors for clients stay what they are", () => {
  const error = new UserError("No.", { status: 429, code: "queue_full", param: "n" })
  const end = endFromWire(endToWire({ kind: "failed", error }))
  if (end.kind !== "failed") throw new Error("not failed")
  expect(end.error).toBeInstanceOf(UserError)
  expect({ ...end.error, message: end.error.message }).toEqual({ ...error, message: error.message })
})

const steps = fc.array(
  fc.record({
    ...{ id: fc.nat(), choice: fc.nat(9), tokens: fc.array(fc.nat(50_000), { maxLength: 3 }) },
    delta: fc.option(fc.record({ content: fc.string(), promptTokens: fc.nat(), completionTokens: fc.nat() })),
  }),
)

test("tokens in columns are the steps that they were", () => {
  fc.assert(
    fc.property(steps, (all) => {
      const told = all.map(({ delta, ...step }) => ({ ...step, delta: delta && { ...PLAIN, ...delta } }))
      const deltas = noDeltas()
      for (const { id, choice, tokens, delta } of told) addDelta(deltas, id, choice, tokens, delta)
      const [frame] = new FrameReader().push(encodeFrame(deltas))
      const read: typeof told = []
      eachDelta(readToGateway(frame) as Deltas, (id, choice, tokens, delta) =>
        read.push({ id, choice, tokens, delta }),
      )
      expect(read).toEqual(told)
    }),
  )
})

const PLAIN: AnswerDelta = {
  ...{ content: "a", reasoning: "", toolCalls: [], logprobs: [], promptTokens: 1, completionTokens: 1 },
}
test("what has no column goes by itself", () => {
  expect([null, PLAIN].map(isPlain)).toEqual([true, true])
  const logprob = { bytes: Uint8Array.of(1), logprob: -1, top: [] }
  const others = [
    { reasoning: "hm" },
    { toolCalls: [{ index: 0, name: "f", arguments: "" }] },
    { logprobs: [logprob] },
  ]
  expect(others.map((other) => isPlain({ ...PLAIN, ...other }))).toEqual([false, false, false])
})

const { deltas: sample, observed } = TO_GATEWAY as Record<string, ToGateway & object>
const wrongColumns: [string, object][] = [
  ["an id less", { ids: [7, 8] }],
  ["a text more", { texts: ["He", null, ".", ""] }],
  ["a token less than is counted", { tokens: [72, 101] }],
  ["a token more", { tokens: [72, 101, 49_151, 1] }],
  ["a length below nothing", { lengths: [3, 1, -1] }],
  ["a token that is no number", { tokens: [72, "101", 49_151] }],
  ["no choices", { choices: undefined }],
]
test.each(wrongColumns)("columns with %s are refused", (_, wrong) => {
  expect(readToGateway(sample)).toEqual(sample)
  expect(() => readToGateway({ ...sample, ...wrong })).toThrow(MessageError)
})

test("what is observed is told in order, tokens first; columns that do not fit are refused", () => {
  const effects = [
    { type: "admitted" as const, id: 1 },
    { type: "token" as const, id: 1, count: 2, lateUs: -5 },
    { type: "token" as const, id: 2, count: 1, lateUs: Infinity },
    { type: "preempted" as const, id: 2 },
  ]
  const [first, ...tokens] = effects.slice(0, 3)
  const [frame] = new FrameReader().push(encodeFrame(observedToWire({ effects, steps: [] })))
  const read = readToGateway(frame) as Extract<ToGateway, { type: "observed" }>
  expect(observedFromWire(read)).toEqual({ effects: [...tokens, first, effects[3]], steps: [] })
  expect(() => readToGateway({ ...observed, tokens: { ids: [1], counts: [1, 2], lateUs: [0] } })).toThrow(
    MessageError,
  )
})
