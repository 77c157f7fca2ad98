/** One engine behind the driver and the default policy, as `serve` runs it with and without `--speculate`. */
import { median } from "simple-statistics"
import type { Slo } from "../../src/core/protocol.ts"
import { type LlamaEngine, openLlama } from "../../src/engine/llama/engine.ts"
import { cacheFolder } from "../../src/models/cache.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { loadOrProfile, type Profile } from "../../src/profile/profile.ts"
import { threadWaits } from "../../src/profile/waits.ts"
import { Random } from "../../src/random.ts"
import { ReplicaDriver } from "../../src/replica/driver.ts"
import { prefixHashes } from "../../src/serve/prefix.ts"
import type { Task } from "./tasks.ts"

export interface ServedOptions {
  model: string
  /** off, lookup or draft=<model>: as for serve. */
  speculate: string
  maxSequences: number
  contextTokens: number
  threads: number
  maxSpeculation: number
  /** One app a task. */
  apps: number
}

/** What a round of answers gave. */
export interface Answers {
  /** Of each request: its tokens after the first, by the time since the first. */
  tokensPerSec: number[]
  seconds: number
  /** CPU time of this process: steadier than the clock where the machine is shared. */
  cpuSeconds: number
  drafted: number
  accepted: number
  /** Rows verified, and steps of the engine. */
  turns: number
  steps: number
}

/** What became of requests that arrived by themselves. */
export interface OpenLoop {
  /** In order of arrival. */
  attained: boolean[]
  seconds: number
  /** Of them, in steps of the engine. */
  busySeconds: number
}

/** One request, when it has ended. */
interface Ended {
  firstUs: number
  lastUs: number
  tokens: number
  attained: boolean
}

/** Nothing is late: what is timed is how fast answers come. */
const LAX: Slo = { ttftUs: 600e6, ttftSlowdown: 0, tpotUs: 1e6, thinkingTpotUs: 1e6, maxGapUs: Infinity }

export class Served {
  readonly engine: LlamaEngine
  readonly profile: Profile
  readonly #driver: ReplicaDriver
  #drafted = 0
  #accepted = 0
  #turns = 0
  #steps = 0
  #busyUs = 0

  private constructor(engine: LlamaEngine, profile: Profile, driver: ReplicaDriver) {
    this.engine = engine
    this.profile = profile
    this.#driver = driver
    driver.observeSteps(({ rows, durationUs, failure }) => {
      if (failure) throw new Error(`a step failed: ${failure}`)
      this.#busyUs += durationUs
      this.#steps++
      for (const row of rows) {
        this.#turns++
        this.#drafted += row.drafted
        this.#accepted += row.tokens.length - 1
      }
    })
  }

  static async open(options: ServedOptions): Promise<Served> {
    const { model, speculate, threads, maxSpeculation, maxSequences, contextTokens, apps } = options
    const find = async (name: string) => resolveModel(name, { fallback: false })
    const found = await find(model)
    const drafts = speculate.startsWith("draft=")
      ? { draftModel: (await find(speculate.slice("draft=".length))).path }
      : (speculate as "off" | "lookup")
    const engine = await openLlama({
      ...{ modelPath: found.path, threads, maxSequences, contextTokens, maxBatchTokens: 512 },
      ...{ speculate: drafts, maxSpeculation },
    })
    if (found.random) engine.model.random = true
    const on = speculate !== "off"
    const profile = await loadOrProfile(engine, {
      ...{ cacheDir: cacheFolder(), quick: true, threads, key: { bench: true, speculate } },
      // Measured now: a profile of a busier hour would decide wrongly.
      refresh: true,
      waits: threadWaits,
      ...(on && { maxDraft: maxSpeculation - 1 }),
    })
    const driver = new ReplicaDriver({
      engine,
      config: {
        ...{ limits: engine.limits, cost: profile.model, policy: "slos-serve", apps },
        options: on ? { speculation: "on", maxSpeculation } : {},
      },
    })
    return new Served(engine, profile, driver)
  }

  /** `n` answers at once to a task's prompts, which stay cached: what is timed is decoding. */
  async answers(task: Task, app: number, n: number, output: number, round: number): Promise<Answers> {
    const before = [this.#drafted, this.#accepted, this.#turns, this.#steps] as const
    const from = performance.now()
    const cpu = process.cpuUsage()
    const tokensPerSec = await Promise.all(
      Array.from({ length: n }, async (_, i) => {
        const prompt = task.prompts[i % task.prompts.length]!
        const sampling = task.sampling(round * n + i)
        const { firstUs, lastUs, tokens } = await this.#submit(prompt, app, sampling, output, LAX, true)
        return (tokens - 1) / ((lastUs - firstUs) / 1e6)
      }),
    )
    const { user, system } = process.cpuUsage(cpu)
    return {
      ...{ tokensPerSec, seconds: (performance.now() - from) / 1000, cpuSeconds: (user + system) / 1e6 },
      ...{ drafted: this.#drafted - before[0], accepted: this.#accepted - before[1] },
      ...{ turns: this.#turns - before[2], steps: this.#steps - before[3] },
    }
  }

  /** Requests that arrive at these seconds, prompts computed anew: which were in time, in order of arrival. */
  async openLoop(
    tasks: readonly Task[],
    arrivals: readonly number[],
    output: number,
    slo: Slo,
    seed: number,
  ): Promise<OpenLoop> {
    const random = new Random("open loop", seed)
    const [from, busyUs] = [performance.now(), this.#busyUs]
    const running: Promise<Ended>[] = []
    for (const at of arrivals) {
      const app = running.length % tasks.length
      const task = tasks[app]!
      const prompt = task.prompts[random.below(task.prompts.length)]!
      const length = Math.max(8, Math.min(2 * output, Math.round(random.lognormal(output, 0.5))))
      await new Promise((go) => setTimeout(go, Math.max(0, from + at * 1000 - performance.now())))
      running.push(this.#submit(prompt, app, task.sampling(running.length), length, slo, false))
    }
    const attained = (await Promise.all(running)).map((ended) => ended.attained)
    const seconds = (performance.now() - from) / 1000
    return { attained, seconds, busySeconds: (this.#busyUs - busyUs) / 1e6 }
  }

  close(): Promise<void> {
    return this.#driver.close()
  }

  #submit(
    prompt: Int32Array,
    app: number,
    sampling: ReturnType<Task["sampling"]>,
    output: number,
    slo: Slo,
    cached: boolean,
  ): Promise<Ended> {
    return new Promise((resolve, reject) => {
      let [firstUs, lastUs, tokens] = [-1, -1, 0]
      this.#driver.submit({
        ...{
          app,
          session: -1,
          prompt,
          sampling,
          slo,
          tier: "slo",
          thinking: false,
          maxOutputTokens: output,
        },
        prefix: cached ? prefixHashes(prompt, this.engine.limits.blockTokens) : [],
        onTokens: (row) => {
          lastUs = this.#driver.nowUs
          if (firstUs < 0) firstUs = lastUs
          tokens += row.tokens.length
          return { stopped: false, answeringFrom: -1 }
        },
        onEnd: ({ reason, outcome }) => {
          if (reason !== "length") reject(new Error(`a request ended as ${reason}`))
          else resolve({ firstUs, lastUs, tokens, attained: outcome!.attained })
        },
      })
    })
  }
}

export function rateOf(answers: Answers): number {
  return median(answers.tokensPerSec)
}
