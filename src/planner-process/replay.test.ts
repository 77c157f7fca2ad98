/** A recording's plans are made again; a recording that was changed, cut or is none is told as that. */
import { readFileSync, writeFileSync } from "node:fs"
import { beforeAll, describe, expect, test } from "vitest"
import { until } from "../serve/until-testing.ts"
import { encodeFrame, FrameReader } from "../wire/frames.ts"
import { freshPath, openEngine, openPlanner } from "./planner-testing.ts"
import { type Recorded, RecordingFile } from "./recording.ts"
import { replayRecording } from "./replay.ts"

let frames: Recorded[]
let bytes: Buffer

beforeAll(async () => {
  const path = `${freshPath()}.rec`
  const recording = new RecordingFile(path, "test", () => {})
  const { planner, path: socket } = await openPlanner({ recording })
  const engine = await openEngine(socket, { name: "recorded" })
  for (let i = 0; i < 12; i++) engine.add({ promptTokens: 30 + 40 * i, maxOutputTokens: 4 + i })
  await engine.run()
  engine.disconnect()
  await until(() => expect(planner.sessions).toHaveLength(0))
  await recording.close()
  bytes = readFileSync(path)
  frames = new FrameReader().push(bytes) as Recorded[]
})

function replayed(content: Buffer | readonly Recorded[]) {
  const path = `${freshPath()}.rec`
  writeFileSync(path, Buffer.isBuffer(content) ? content : Buffer.concat(content.map(encodeFrame)))
  return replayRecording(path)
}

/** The recording, with its frame of this type and number changed. */
function changed(type: Recorded["type"], nth: number, change: (recorded: Recorded) => void): Recorded[] {
  const copy = structuredClone(frames)
  change(copy.filter((recorded) => recorded.type === type)[nth]!)
  return copy
}

test("every plan is the same", () => {
  const result = replayed(bytes)
  expect(result).toMatchObject({ sessions: 1, difference: null, program: "test", cut: false })
  expect(result.plans).toBeGreaterThan(10)
  expect(result.events).toBe(frames.filter(({ type }) => type === "event").length)
})

describe("a change is found, and named", () => {
  test("in what was decided", () => {
    const other = changed("decided", 3, (recorded) => {
      if (recorded.type !== "decided") return
      Object.assign(recorded.batch!.items[0]!, { tokens: 999 })
    })
    const { difference, plans } = replayed(other)
    expect(plans).toBe(4)
    expect(difference).toMatchObject({ engine: "recorded" })
    expect(difference!.what).toMatch(/^batch 4, item 1: \{"id":\d+.*"tokens":999,.* was \{/)
  })
  test("in what was told besides", () => {
    const other = changed("decided", 3, (recorded) => {
      if (recorded.type === "decided") recorded.effects++
    })
    expect(replayed(other).difference!.what).toBe("the plans are the same, what else was told is not")
  })
  test("in what happened", () => {
    const other = changed("event", 0, (recorded) => {
      if (recorded.type === "event" && recorded.event.type === "arrived")
        Object.assign(recorded.event.request, { promptTokens: 31 })
    })
    expect(replayed(other).difference).not.toBeNull()
  })
  test("where the core does not even take it", () => {
    const other = changed("event", 1, (recorded) => {
      if (recorded.type === "event")
        recorded.event = { type: "stepDone", batch: 99, durationUs: 1, results: [] }
    })
    expect(replayed(other).difference!.what).toMatch(/the core fails .*batch 99/)
  })
})

test("a recording whose process was killed is replayed up to its last whole frame", () => {
  const cut = replayed(bytes.subarray(0, bytes.length - 10))
  expect(cut).toMatchObject({ difference: null, cut: true })
})

describe("no recordings", () => {
  const version = (): Recorded[] => [{ type: "recording", version: 99, program: "later" }]
  const nonsense: [string, () => Buffer | Recorded[], RegExp][] = [
    ["nothing", () => Buffer.alloc(0), /does not begin as one/],
    ["text", () => Buffer.from("once upon a time there was a file of text"), /header is not what was sent/],
    ["another version", version, /of version 99, this program reads 1/],
    ["frames of something else", () => [{ type: "hello" } as never], /does not begin as one/],
    ["a frame that is no message", () => [frames[0]!, 7 as never], /no message|does not/],
    ["a session without a beginning", () => [frames[0]!, ...frames.slice(2)], /session 1 has no beginning/],
    ["two in one", () => [...frames, ...frames], /begins twice/],
  ]
  test.each(nonsense)("%s", (_, content, says) => {
    expect(() => replayed(content())).toThrow(says)
  })
})
