/** Engines over a real Unix socket, played: what they are told runs, what they say is heeded, and nonsense ends one connection. */
import { createConnection } from "node:net"
import { expect, test } from "vitest"
import { type CostModel, shapeOf, stepUs } from "../core/cost.ts"
import { LAYOUT } from "../fit/guess.ts"
import { until } from "../serve/until-testing.ts"
import { encodeFrame, FrameReader } from "../wire/frames.ts"
import {
  PLANNER_VERSION,
  plannerHello,
  readToPlugin,
  type ToPlugin,
  toWire,
} from "../wire/planner/messages.ts"
import { freshPath, openEngine, openPages, openPlanner } from "./planner-testing.ts"
import type { Recorder, RecordingFile } from "./recording.ts"
import { ENGINE, PlayedEngine } from "./testing.ts"

const mixed = (engine: PlayedEngine, count = 30) => {
  for (let i = 0; i < count; i++)
    engine.add({ promptTokens: 20 + 17 * i, maxOutputTokens: 1 + i, stopsAfter: i % 3 === 0 ? 4 : Infinity })
}

test("an engine runs what it is told, to the token", async () => {
  const { path, planner } = await openPlanner()
  const engine = await openEngine(path)
  expect(engine.said).toMatchObject([
    { type: "hello", protocol: "slos-serve-planner" },
    { type: "ready", policy: "slos-serve", maxLagUs: 5000 },
  ])
  mixed(engine)
  await engine.run()
  expect(engine.misfits).toEqual([])
  expect(engine.squeezed).toBe(0)
  expect(engine.ended).toHaveLength(30)
  expect(engine.steps.engine).toBe(0)
  expect(engine.steps.plan).toBeGreaterThan(30)
  await engine.step()
  await until(() => expect(planner.front.snapshot()).toMatchObject({ running: 0, waiting: 0 }))
  expect(planner.options.tenants.queue.taken).toBe(0)
})

test.each([2, 3, 4])("with %i batches in flight, as asynchronous engines have", async (depth) => {
  const { path } = await openPlanner()
  const engine = await openEngine(path, { depth })
  mixed(engine)
  await engine.run()
  expect(engine.misfits).toEqual([])
  expect(engine.squeezed).toBe(0)
  expect(engine.ended).toHaveLength(30)
  expect(engine.steps.engine).toBe(0)
  for (const { output, maxOutputTokens, stopsAfter } of engine.ended)
    expect(output).toBe(Math.min(maxOutputTokens, stopsAfter))
})

test.each([0, 1])(
  "what arrives while a step is computed is in the next one if the plan is renewed (%i)",
  async (renews) => {
    const { path } = await openPlanner()
    const engine = new PlayedEngine({}, { renews })
    await engine.connect(path)
    const first = engine.add({ maxOutputTokens: 40 })
    for (let i = 0; i < 5; i++) await engine.step()
    const second = engine.add({ promptTokens: 30, maxOutputTokens: 5 })
    await engine.step()
    expect(first.output).toBe(6)
    expect(second.output).toBe(renews)
    await engine.run()
    expect(engine.misfits).toEqual([])
    expect(engine.ended).toHaveLength(2)
    // A plan that another took the place of is no step.
    expect(engine.steps).toEqual({ plan: 40, changed: 0, engine: 0 })
    await engine.step()
    engine.disconnect()
  },
)

test("aborted requests leave: the others go on, to the token", async () => {
  const { path, planner } = await openPlanner()
  const engine = await openEngine(path)
  mixed(engine)
  for (let id = 1; id <= 30; id += 3) {
    await engine.step()
    engine.abort(id)
  }
  await engine.run()
  expect(engine.misfits).toEqual([])
  expect(engine.ended.length).toBeGreaterThanOrEqual(20)
  await engine.step()
  expect(planner.options.tenants.queue.taken).toBe(0)
})

test("two ranks at once have a core each, and one planner's pages", async () => {
  const { path, planner } = await openPlanner()
  const url = await openPages(planner)
  const engines = await Promise.all(
    [0, 1].map((dataRank) => openEngine(path, { name: `rank-${dataRank}`, dataRank })),
  )
  for (const engine of engines) for (let i = 0; i < 10; i++) engine.add({ maxOutputTokens: 1 + i })
  await Promise.all(engines.map((engine) => engine.run()))
  for (const engine of engines) {
    expect(engine.misfits).toEqual([])
    expect(engine.ended).toHaveLength(10)
    await engine.step()
  }
  const status = (await (await fetch(`${url}/v1/slo/status`)).json()) as { replicas: { name: string }[] }
  expect(status.replicas.map(({ name }) => name)).toEqual(["rank-0", "rank-1"])
  await until(async () => {
    const metrics = await (await fetch(`${url}/metrics`)).text()
    const ended = [...metrics.matchAll(/slos_serve_requests_total\{class="chat",.*\} (\d+)/g)]
    expect(ended.reduce((sum, [, count]) => sum + Number(count), 0)).toBe(20)
    expect(metrics).toMatch(/slos_serve_engine_steps_total\{engine="rank-1",by="plan"\} \d/)
  })
  engines[0]!.disconnect()
  await until(() => expect(planner.sessions).toHaveLength(1))
  engines[1]!.add()
  await engines[1]!.run()
  expect(engines[1]!.ended).toHaveLength(11)
})

test("a planner that is killed and comes back is told all anew, and goes on from there", async () => {
  const path = freshPath()
  const first = await openPlanner({}, path)
  const engine = await openEngine(path)
  mixed(engine)
  for (let i = 0; i < 10; i++) await engine.step()
  await first.close()
  await until(() => expect(engine.connected).toBe(false))
  expect(engine.said.at(-1)).toEqual({ type: "goodbye", message: "over" })
  // By itself meanwhile.
  for (let i = 0; i < 5; i++) await engine.step()
  expect(engine.steps.engine).toBe(5)
  const live = engine.requests.size
  expect(live).toBeGreaterThan(5)
  const second = await openPlanner({}, path)
  await engine.connect(path)
  await engine.step()
  expect(second.planner.front.snapshot().running).toBeGreaterThan(0)
  await engine.run()
  expect(engine.ended).toHaveLength(30)
  expect(engine.misfits).toEqual([])
  expect(engine.steps.engine).toBe(5)
})

test("what began before the planner came is judged from its own arrival", async () => {
  const { path, planner } = await openPlanner()
  const url = await openPages(planner)
  const engine = new PlayedEngine()
  const slo = { slo_class: "code", slo_ttft_ms: 1000, slo_tpot_ms: 100 }
  engine.add({ slo, maxOutputTokens: 8 })
  // A second late: no later step can mend that.
  engine.add({ slo, maxOutputTokens: 8, atUs: engine.nowUs - 2_000_000 })
  for (let i = 0; i < 4; i++) await engine.step()
  await engine.connect(path)
  await engine.run()
  await engine.step()
  engine.disconnect()
  await until(async () => {
    const metrics = await (await fetch(`${url}/metrics`)).text()
    expect(metrics).toMatch(/slos_serve_requests_total\{class="code",attained="true"\} 1/)
    expect(metrics).toMatch(/slos_serve_requests_total\{class="code",attained="false"\} 1/)
  })
})

test("what landed long before it was told is judged by when it landed", async () => {
  const { path, planner } = await openPlanner()
  const url = await openPages(planner)
  const engine = await openEngine(path)
  const slo = { slo_class: "code", slo_ttft_ms: 1000, slo_tpot_ms: 100 }
  engine.add({ slo })
  await engine.run()
  // The engine stood idle, and told nothing meanwhile.
  engine.nowUs += 60_000_000
  engine.add({ slo, maxOutputTokens: 1 })
  await engine.run()
  engine.nowUs += 60_000_000
  await engine.step()
  await until(async () => {
    const metrics = await (await fetch(`${url}/metrics`)).text()
    expect(metrics).toMatch(/slos_serve_requests_total\{class="code",attained="true"\} 2/)
  })
})

test("an engine that has gone frees its tenants' places", async () => {
  const { path, planner, said } = await openPlanner()
  const engine = await openEngine(path)
  for (const slo_tenant of ["ann", "bob"]) engine.add({ slo: { slo_tenant } })
  await engine.step()
  expect(planner.options.tenants.queue.taken).toBe(2)
  engine.disconnect()
  await until(() => expect(planner.options.tenants.queue.taken).toBe(0))
  expect(said.at(-1)).toBe("engine played is gone: its connection ended")
})

/** What the planner says to these frames, until it ends the connection. */
function converse(path: string, frames: readonly (object | Buffer)[]): Promise<ToPlugin[]> {
  const socket = createConnection(path)
  const reader = new FrameReader()
  const heard: ToPlugin[] = []
  for (const frame of frames) socket.write(Buffer.isBuffer(frame) ? frame : encodeFrame(frame))
  return new Promise((done) => {
    socket.on("data", (piece: Buffer) => heard.push(...reader.push(piece).map(readToPlugin)))
    socket.on("error", () => {})
    socket.on("close", () => done(heard))
  })
}

const step = { type: "step", seq: 1, nowUs: 5, ran: null, landed: [], arrived: [] }
const column = (...numbers: number[]) => new Uint8Array(Float64Array.from(numbers).buffer)
const arrival = {
  ...{ id: 1, ageUs: 0, promptTokens: 5, maxOutputTokens: 5, slo: {}, lora: null, waitsForGrammar: false },
}
const hello = plannerHello()
const limits = { ...ENGINE.limits }
const refused: [string, (object | Buffer)[], RegExp][] = [
  ["another version", [{ ...hello, version: PLANNER_VERSION + 1 }], /refused.*version 3.*install/],
  ["another protocol", [{ ...hello, protocol: "slos-serve" }], /refused.*speaks slos-serve/],
  ["no hello", [ENGINE], /refused.*no hello/],
  ["a KV of no block", [hello, { ...ENGINE, limits: { ...limits, kvTokens: 8 } }], /refused.*8 tokens of KV/],
  [
    "chunks that fit no step",
    [hello, { ...ENGINE, limits: { ...limits, minChunkTokens: 512 } }],
    /refused.*512 tokens do not fit/,
  ],
  ["an engine twice", [hello, ENGINE, ENGINE], /refused.*already/],
  ["steps without an engine", [hello, step], /goodbye.*before it says what it is/],
  ["a step of the past", [hello, ENGINE, step, step], /goodbye.*step 1 after step 1/],
  [
    "a request twice",
    [hello, ENGINE, { ...step, arrived: [arrival, arrival] }],
    /goodbye.*request 1 is live/,
  ],
  [
    "a plan that was none",
    [hello, ENGINE, { ...step, ran: { batch: 9, atUs: 5, exact: true } }],
    /goodbye.*batch 9 ran, but the plan was batch 0/,
  ],
  [
    "results of a step that never was",
    [
      ...[hello, ENGINE],
      { ...step, landed: [{ step: 7, atUs: 5, durationUs: 1, ids: column(1), produced: column(1) }] },
    ],
    /goodbye.*step 7 is not in flight/,
  ],
]
test.each(refused)("%s: that connection ends with the reason, others go on", async (_, frames, says) => {
  const { path, said } = await openPlanner()
  const other = await openEngine(path, { name: "other" })
  const wire = frames.map((frame) => ("limits" in frame ? toWire(frame as typeof ENGINE) : frame))
  const heard = await converse(path, wire)
  expect(JSON.stringify(heard.at(-1))).toMatch(says)
  mixed(other, 5)
  await other.run()
  expect(other.ended).toHaveLength(5)
  expect(said.filter((line) => line.includes("fault"))).toEqual([])
})

test.each([
  ["bytes that are no frame", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
  ["a message with a wrong field", { ...step, nowUs: "now" }],
])("%s: that connection ends", async (_, frame) => {
  const { path, said } = await openPlanner()
  await converse(path, [hello, toWire(ENGINE), frame])
  await until(() => expect(said.at(-1)).toMatch(/(is gone|has ended): (a frame|a message \(step\): nowUs)/))
})

test("a second engine of one name is refused; its name is free when the first has gone", async () => {
  const { path, planner } = await openPlanner()
  const first = await openEngine(path)
  const second = await openEngine(path)
  expect(second.said.at(-1)).toMatchObject({
    type: "refused",
    message: expect.stringContaining("name of its own"),
  })
  first.disconnect()
  await until(() => expect(planner.sessions).toHaveLength(0))
  const third = await openEngine(path)
  expect(third.said.at(-1)).toMatchObject({ type: "ready" })
})

test("what an engine said while the planner was busy is answered once, as of the last of it", async () => {
  const { path } = await openPlanner()
  const steps = [1, 2, 3].map((seq) => ({ ...step, seq, arrived: [{ ...arrival, id: seq }] }))
  const answers = await new Promise<ToPlugin[]>((done) => {
    const socket = createConnection(path)
    const reader = new FrameReader()
    const heard: ToPlugin[] = []
    socket.write(Buffer.concat([hello, toWire(ENGINE), ...steps].map((frame) => encodeFrame(frame))))
    socket.on("data", (piece: Buffer) => {
      heard.push(...reader.push(piece).map(readToPlugin))
      if (heard.at(-1)?.type === "plan") {
        socket.destroy()
        done(heard)
      }
    })
  })
  expect(answers.map(({ type }) => type)).toEqual(["hello", "ready", "plan"])
  const plan = answers[2] as Extract<ToPlugin, { type: "plan" }>
  expect(plan.seq).toBe(3)
  expect([...plan.ids].sort()).toEqual([1, 2, 3])
})

test("from when on plans are renewed is told to its core when that changes", async () => {
  const told: object[] = []
  const recorder: Recorder = {
    ...{ began() {}, decided() {}, ended() {} },
    happened: (_, event) => {
      if (event.type === "renews") told.push(event)
    },
  }
  const recording = { recorder: () => recorder } as unknown as RecordingFile
  const { path } = await openPlanner({ recording })
  const from = [undefined, 30_000, 30_000, undefined, 200].map((renewsFromUs, i) => ({
    ...{ ...step, seq: i + 1 },
    ...(renewsFromUs !== undefined && { renewsFromUs }),
  }))
  // The last one is of the past: that ends the connection.
  await converse(path, [hello, ENGINE, ...from, step])
  expect(told).toEqual([
    { type: "renews", fromUs: 30_000 },
    { type: "renews", fromUs: 200 },
  ])
})

test("what its steps take is learnt while it runs, and told to its core as any event is", async () => {
  const costs: CostModel[] = []
  const recorder: Recorder = {
    ...{ began() {}, decided() {}, ended() {} },
    happened: (_, event) => {
      if (event.type === "costModel") costs.push(event.cost)
    },
  }
  const recording = { recorder: () => recorder } as unknown as RecordingFile
  const { path } = await openPlanner({ recording })
  const engine = await openEngine(path)
  for (let i = 0; i < 60; i++) engine.add({ promptTokens: 20 + 11 * (i % 30), maxOutputTokens: 5 + (i % 20) })
  await engine.run()
  expect(engine.misfits).toEqual([])
  expect(costs.length).toBeGreaterThan(3)
  const decode = { position: 100, tokens: 1, sample: true, draft: 0 }
  const batch = [decode, decode, { ...decode, position: 0, tokens: 60 }]
  // 5 ms a step, 50 µs a token.
  expect(stepUs(costs.at(-1)!, shapeOf(batch, LAYOUT)) / (5000 + 62 * 50)).toBeCloseTo(1, 1)
})
