/** Frames stay what they were: plug-ins of other versions, in Python, read and write them. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { encodeFrame, FrameReader } from "../frames.ts"
import { MessageError } from "../messages.ts"
import { columnBytes, columnOf } from "./columns.ts"
import {
  PLANNER_VERSION,
  type PlanMessage,
  plannerHello,
  plannerRefusalOf,
  readToPlanner,
  readToPlugin,
  type StepMessage,
  toWire,
} from "./messages.ts"
import { TO_PLANNER, TO_PLUGIN } from "./samples.suite.ts"

interface Golden {
  /** Columns as `{"f64": [...]}`, of plans `{"i64": [...]}`; what a reader in any language must make of the frame. */
  message: unknown
  /** Hexadecimal. */
  frame: string
}

/** A new message is added by running with GOLDEN=write; what is there must not change without a new version. */
const file = (way: string) => resolve(import.meta.dirname, `../golden/${way}-${PLANNER_VERSION}.json`)
const golden = (way: string): Record<string, Golden> =>
  existsSync(file(way)) ? JSON.parse(readFileSync(file(way), "utf8")) : {}

const framed = (message: Parameters<typeof toWire>[0]) => encodeFrame(toWire(message))
const decoded = (frame: Buffer) => new FrameReader().push(frame)[0]

/** Columns by name. */
function plain(value: unknown, kind = "f64"): unknown {
  if (value instanceof Float64Array) return { [kind]: [...value] }
  if (Array.isArray(value)) return value.map((one) => plain(one, kind))
  if (value === null || typeof value !== "object") return value
  const of = "type" in value && value.type === "plan" ? "i64" : kind
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one, of)]))
}

describe.each([
  ["to-planner", TO_PLANNER, readToPlanner],
  ["to-plugin", TO_PLUGIN, readToPlugin],
] as const)("%s", (way, samples, read) => {
  if (process.env.GOLDEN === "write") {
    const entries = Object.entries(samples).map(([name, message]): [string, Golden] => [
      name,
      { message: plain(message), frame: framed(message).toString("hex") },
    ])
    writeFileSync(file(way), `${JSON.stringify(Object.fromEntries(entries), null, 1)}\n`)
  }

  test("there is a golden frame of every sample", () => {
    expect(Object.keys(golden(way))).toEqual(Object.keys(samples))
  })

  test.each(Object.entries(samples))("%s is the golden frame, and reads as it", (name, message) => {
    const { frame, message: told } = golden(way)[name]!
    expect(framed(message).toString("hex")).toBe(frame)
    const back = read(decoded(Buffer.from(frame, "hex")))
    expect(plain(back)).toEqual(told)
    expect(back).toEqual(message)
  })
})

const step = (changes: object = {}): object => ({
  ...{ type: "step", seq: 1, nowUs: 0, ran: null, landed: [], arrived: [] },
  ...changes,
})
const bytes = (...numbers: number[]) => columnBytes(columnOf(numbers))
const columns = { ids: bytes(1), positions: bytes(0), tokens: bytes(4) }
const arrival = {
  ...{ id: 1, ageUs: 0, promptTokens: 4, maxOutputTokens: 1, slo: {}, lora: null, waitsForGrammar: false },
}
const landed = { step: 1, atUs: 9, durationUs: 5, ids: bytes(1), produced: bytes(1) }
const begun = { output: 1, computed: 4, agoUs: bytes(5), tokens: bytes(1), even: false }

const wrong: [string, object, RegExp][] = [
  ["a column that is no bytes", step({ cancelled: [1] }), /step.*cancelled.*no column/],
  ["bytes that are no numbers", step({ cancelled: new Uint8Array(9) }), /cancelled.*9 bytes/],
  ["an id that is no whole number", step({ cancelled: bytes(1, 1.5) }), /cancelled.*\[1\] is 1.5/],
  ["an id below zero", step({ lost: bytes(-1) }), /lost.*\[0\] is -1/],
  ["an id that is not a number", step({ ready: bytes(Number.NaN) }), /ready.*\[0\] is NaN/],
  ["a number beyond 2^53", step({ ready: bytes(2 ** 53) }), /ready.*9007199254740992/],
  [
    "columns of different lengths",
    step({ ran: { batch: 0, atUs: 0, exact: false, ...columns, tokens: bytes(1, 2) } }),
    /ran.*different lengths/,
  ],
  [
    "a step that says nothing of what ran",
    step({ ran: { batch: 1, atUs: 0, exact: false } }),
    /ran.*neither/,
  ],
  ["an exact step of no plan", step({ ran: { batch: 0, atUs: 0, exact: true } }), /ran.*no plan/],
  [
    "a landed step with a place too many",
    step({ landed: [{ ...landed, computed: bytes(1, 0) }] }),
    /landed.0.*lengths/,
  ],
  [
    "a landed step that says what came out of nothing",
    step({ landed: [{ step: 1, atUs: 9, durationUs: 5, produced: bytes(1) }] }),
    /landed.0.*only one of ids and produced/,
  ],
  ["an index below -1", step({ landed: [{ ...landed, answeringFrom: bytes(-2) }] }), /answeringFrom.*-2/],
  ["a request of no tokens", step({ arrived: [{ ...arrival, promptTokens: 0 }] }), /arrived.0.promptTokens/],
  ["a request from the future", step({ arrived: [{ ...arrival, ageUs: -1 }] }), /arrived.0.ageUs/],
  [
    "tokens without times",
    step({ arrived: [{ ...arrival, begun: { ...begun, output: 2 } }] }),
    /begun.*1 tokens with times, but 2/,
  ],
  [
    "times without tokens",
    step({ arrived: [{ ...arrival, begun: { ...begun, agoUs: bytes(5, 4) } }] }),
    /begun.*different lengths/,
  ],
  [
    "a time in the future",
    step({ arrived: [{ ...arrival, begun: { ...begun, agoUs: bytes(-5) } }] }),
    /agoUs.*-5/,
  ],
  ["a step that never ends", step({ nowUs: Infinity }), /nowUs/],
]
test.each(wrong)("%s is refused by its field", (_, message, says) => {
  const frame = decoded(encodeFrame(message))
  expect(() => readToPlanner(frame)).toThrow(MessageError)
  expect(() => readToPlanner(frame)).toThrow(says)
})

test("fields of a later release are left out", () => {
  expect(readToPlanner(decoded(encodeFrame(step({ mood: "good" }))))).toEqual(step())
})

test("columns come out as they went in, at whatever offset they arrive", () => {
  const numbers = fc.array(fc.maxSafeNat(), { maxLength: 40 })
  fc.assert(
    fc.property(numbers, fc.string({ maxLength: 9 }), (ids, name) => {
      const message = { ...step(), cancelled: columnOf(ids) } as StepMessage
      const arrived = [{ ...arrival, lora: name, prefix: columnOf(ids.toReversed()) }]
      const back = readToPlanner(decoded(framed({ ...message, arrived }))) as StepMessage
      expect([...back.cancelled!]).toEqual(ids)
      expect([...back.arrived[0]!.prefix!]).toEqual(ids.toReversed())
    }),
    { numRuns: 100 },
  )
})

test("the columns of plans come out as they went in, as int64", () => {
  fc.assert(
    fc.property(fc.array(fc.maxSafeNat(), { maxLength: 40 }), (ids) => {
      const columns = { ids: columnOf(ids), positions: columnOf(ids), tokens: columnOf(ids) }
      const plan: PlanMessage = { ...{ type: "plan", seq: 1, batch: 1, predictedUs: 5 }, ...columns }
      const frame = decoded(framed(plan)) as Record<string, Uint8Array>
      expect([...new BigInt64Array(Uint8Array.from(frame.ids!).buffer)].map(Number)).toEqual(ids)
      expect(readToPlugin(frame)).toEqual(plan)
    }),
    { numRuns: 100 },
  )
})

test.each([
  ["beyond 2^53", 2n ** 53n],
  ["below zero", -1n],
])("a plan of an id %s is refused", (_, id) => {
  const ids = new Uint8Array(BigInt64Array.of(id).buffer)
  const frame = { type: "plan", seq: 1, batch: 1, predictedUs: 5, ids, positions: ids, tokens: ids }
  expect(() => readToPlugin(decoded(encodeFrame(frame)))).toThrow(/plan.*ids.*whole number/)
})

test("bytes at random are no message, and no other error", () => {
  const junk = fc.oneof(
    fc.anything(),
    fc.record({ type: fc.constantFrom("step", "plan", "engine", "hello"), ids: fc.uint8Array() }),
  )
  fc.assert(
    fc.property(junk, (message) => {
      for (const read of [readToPlanner, readToPlugin]) {
        try {
          read(message)
        } catch (error) {
          expect((error as Error).name).toBe("MessageError")
        }
      }
    }),
    { numRuns: 500 },
  )
})

test("another version, or another protocol, is refused with what to do", () => {
  expect(plannerRefusalOf(plannerHello())).toBeNull()
  expect(plannerRefusalOf({ ...plannerHello(), version: PLANNER_VERSION + 1 })).toMatch(
    /version 3.*version 2: install/,
  )
  expect(plannerRefusalOf({ ...plannerHello(), protocol: "slos-serve" })).toMatch(/speaks slos-serve,/)
})
