/** Streams of real engines whose process is killed under way, each gone on with by another process: not a token is lost
 * or said twice. */
import { afterAll, beforeAll, expect, test } from "vitest"
import { GREEDY, type Sampling } from "../engine/port.ts"
import { WorkerProcess } from "../fleet/worker-process.ts"
import type { Begun, Job } from "../replica/host.ts"
import { Restarts } from "../router/health.ts"
import { generation, jobOf, Kept } from "../serve/host.suite.ts"
import type { ServeOptions } from "./serve-options.ts"
import { spawnWorker } from "./spawn-worker.ts"
import { setupOf } from "./worker-testing.ts"

// Exact equality needs full precision and one thread (docs/design.md, Engine).
const OPTIONS = {
  ...{ model: "tiny-f32", engine: "llama", library: "cpu", threads: 1, kvType: "f32", profile: false },
  ...{
    host: "127.0.0.1",
    port: 0,
    policy: "slos-serve",
    maxSequences: 4,
    context: 1024,
    maxBatchTokens: 256,
  },
  ...{ maxQueue: 100, defaultMaxTokens: 1024, parseSpecial: "asked", requireKey: true, speculate: "off" },
  ...{ maxSpeculation: 8, bodyLimit: 1e6, requestTimeout: 30, stepTimeout: 10, drainTimeout: 30 },
} as unknown as ServeOptions
const TOKENS = 900

let mortal: WorkerProcess
let other: WorkerProcess
beforeAll(async () => {
  const worker = (name: string) =>
    new WorkerProcess({
      ...{ name, spawn: () => spawnWorker(undefined), setup: setupOf(name, OPTIONS) },
      restarts: new Restarts({ firstUs: 10_000, longestUs: 50_000, stableUs: 1_000_000 }),
    })
  mortal = worker("mortal")
  other = worker("other")
  await Promise.all([mortal.ready(), other.ready()])
}, 90_000)
afterAll(() => Promise.all([mortal.close(), other.close()]))

/** Tokens of a stream, and when they came; ms. */
class Timed extends Kept {
  readonly atMs: number[] = []
  readonly #onStep: (steps: number) => void

  constructor(onStep: (steps: number) => void = () => {}) {
    super()
    this.#onStep = onStep
    const keep = this.tokens
    this.tokens = (choice, tokens, delta) => {
      keep(choice, tokens, delta)
      this.atMs.push(performance.now())
      this.#onStep(this.atMs.length)
    }
  }
  begun(nowMs: number): Begun {
    const steps = this.steps.map(({ tokens }, i) => ({ tokens, agoUs: (nowMs - this.atMs[i]!) * 1000 }))
    return { steps, start: this.starts[0]! }
  }
}

/** By the death of its process, after so many steps or a few more. This process may hear of them so late that the stream has
 * ended by then: another one is begun. */
async function cutOff(job: Job, killedAfter: number): Promise<Timed> {
  await mortal.ready()
  const { pid } = mortal
  const cut = new Timed((steps) => {
    if (steps === killedAfter) process.kill(pid!, "SIGKILL")
  })
  mortal.submit(job, cut)
  const [end] = await cut.over()
  if (end?.kind !== "finished") return cut
  await expect.poll(() => mortal.pid).not.toBe(pid)
  return cutOff({ ...job, id: jobOf().id }, killedAfter)
}

const samplings: [string, Partial<Sampling>, number][] = [
  ["greedy", {}, 37],
  ["drawn by a seed", { temperature: 1, seed: 5 }, 2],
  ["drawn with penalties", { temperature: 0.8, topP: 0.9, seed: 6, repeatPenalty: 1.2 }, 70],
]
test.each(samplings)("%s", async (_, sampling, killedAfter) => {
  const of = generation({ maxTokens: TOKENS, sampling: { ...GREEDY, ignoreEos: true, ...sampling } })
  const job = (begun: Begun | null): Job => ({
    ...{ id: jobOf().id, generation: of, ageUs: 5_000_000, choices: [{ index: 0, begun }] },
  })
  const whole = new Kept()
  other.submit(job(null), whole)
  await whole.over()

  const cut = await cutOff(job(null), killedAfter)
  expect(cut.ends[0]).toMatchObject({ kind: "lost", reason: "died" })
  expect(cut.tokensOf[0]!.length).toBeLessThan(TOKENS)

  const rest = new Kept()
  other.submit(job(cut.begun(performance.now())), rest)
  const [end] = await rest.over()
  expect([...cut.tokensOf[0]!, ...rest.tokensOf[0]!]).toEqual(whole.tokensOf[0])
  expect(cut.text[0]! + rest.text[0]!).toBe(whole.text[0])
  expect(end).toMatchObject({ kind: "finished", reason: "length", usage: { completionTokens: TOKENS } })
})
