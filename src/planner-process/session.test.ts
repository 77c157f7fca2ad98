/** Engines over a real Unix socket, played: what they are told runs, and what they say is heeded. */
import { mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { type CostModel, shapeOf, stepUs } from "../core/cost.ts"
import { LAYOUT } from "../fit/guess.ts"
import { until } from "../serve/until-testing.ts"
import { listenAt, type PlannerSocket } from "./listen.ts"
import type { PlannerOptions } from "./planner-options.ts"
import { PlannerProcess } from "./planner-process.ts"
import { PlannerTenants } from "./planner-tenants.ts"
import type { Recorder, RecordingFile } from "./recording.ts"
import { StepTimes } from "./step-times.ts"
import { PlayedEngine } from "./testing.ts"

const folder = mkdtempSync(join(tmpdir(), "planner-"))
const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

const unkept: PlannerOptions["stepTimesOf"] = (engine) =>
  new StepTimes(engine, { cacheDir: null, log: () => {} })

let paths = 0
async function open(changes: Partial<PlannerOptions> = {}, path = join(folder, `${++paths}.sock`)) {
  const said: string[] = []
  const planner = new PlannerProcess({
    ...{ classes: defaultSloClasses(), tenants: new PlannerTenants({}), policy: "slos-serve" },
    ...{ policyOptions: {}, stepTimesOf: unkept, maxLagUs: 5000, version: "0", recording: null },
    log: (message) => said.push(message),
    ...changes,
  })
  const socket: PlannerSocket = await listenAt(path, (connection) => planner.connect(connection))
  let over = false
  const close = async () => {
    if (over) return
    over = true
    await planner.goodbye("over")
    await socket.close()
  }
  closers.push(close)
  return { planner, path, said, close }
}

async function connected(path: string, engine: ConstructorParameters<typeof PlayedEngine>[0] = {}) {
  const played = new PlayedEngine(engine)
  await played.connect(path)
  closers.push(async () => played.disconnect())
  return played
}

test("an engine runs what it is told, to the token", async () => {
  const { path, planner } = await open()
  const engine = await connected(path)
  expect(engine.said).toMatchObject([
    { type: "hello", protocol: "slos-serve-planner" },
    { type: "ready", policy: "slos-serve", maxLagUs: 5000 },
  ])
  for (let i = 0; i < 30; i++)
    engine.add({ promptTokens: 20 + 17 * i, maxOutputTokens: 1 + i, stopsAfter: i % 3 === 0 ? 4 : Infinity })
  await engine.run()
  expect(engine.misfits).toEqual([])
  expect(engine.ended).toHaveLength(30)
  expect(engine.steps.engine).toBe(0)
  expect(engine.steps.plan).toBeGreaterThan(30)
  await until(() => expect(planner.front.snapshot()).toMatchObject({ running: 0, waiting: 0 }))
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
  const { path } = await open({ recording })
  const engine = await connected(path)
  for (let i = 0; i < 60; i++) engine.add({ promptTokens: 20 + 11 * (i % 30), maxOutputTokens: 5 + (i % 20) })
  await engine.run()
  expect(engine.misfits).toEqual([])
  expect(costs.length).toBeGreaterThan(3)
  const decode = { position: 100, tokens: 1, sample: true, draft: 0 }
  const step = [decode, decode, { ...decode, position: 0, tokens: 60 }]
  // 5 ms a step, 50 µs a token.
  expect(stepUs(costs.at(-1)!, shapeOf(step, LAYOUT)) / (5000 + 62 * 50)).toBeCloseTo(1, 1)
})
