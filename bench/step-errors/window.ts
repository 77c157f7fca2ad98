/** One window of a planned load, served in this process with the code of some checkout: every step, what was predicted and
 * what it took, as JSON in a file. Run by ../step-errors.ts, once for each checkout and window. */
import { writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { PerformanceObserver } from "node:perf_hooks"
import { Command } from "commander"
import { numberIn, wholeNumber } from "../../src/cli/numbers.ts"
import { collect, readTraces } from "../../src/cli/workload-options.ts"
import { type CostModel, shapeOf, stepUs } from "../../src/core/cost.ts"
import type { Slo } from "../../src/core/protocol.ts"
import { type Engine, GREEDY } from "../../src/engine/port.ts"
import { readClasses, roundSlo } from "../../src/load/classes.ts"
import type { Plan, PlannedRequest, PlannedRound } from "../../src/load/plan.ts"
import { promptOf } from "../../src/load/replay.ts"
import { makePlan } from "../../src/load/workload.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { threadWaits } from "../../src/profile/waits.ts"
import type { ReplicaDriver, Submission } from "../../src/replica/driver.ts"

/** One step as it ran; times in µs. */
export interface Step {
  sequences: number
  tokens: number
  /** Some prompt was in it. */
  prefill: boolean
  /** Since the step before it ended. */
  idleUs: number
  /** What its profile says, uncalibrated. */
  modelUs: number
  /** Calibrated, without margin: what the batch was planned by. */
  predictedUs: number
  us: number
  /** Time that the engine's thread waited for a core meanwhile. */
  waitedUs: number
  /** Garbage collection meanwhile, on the event loop's thread. */
  gcUs: number
}

export interface Window {
  fit: { r2: number; mape: number }
  /** Requests (a session counts once), and how many kept every objective. */
  requests: number
  attained: number
  steps: Step[]
}

interface Options {
  root: string
  model: string
  rate: number
  duration: number
  scale: number
  seed: number
  threads: number
  classes?: string
  trace: string[]
  cache: string
  out: string
}

async function main(): Promise<void> {
  const options = new Command("bench/step-errors/window.ts")
    .requiredOption("--root <checkout>", "whose code serves")
    .requiredOption("--model <name>", "as for serve")
    .requiredOption("--rate <n>", "requests per second", numberIn(0.01, 1e4))
    .requiredOption("--duration <s>", "of the arrivals", numberIn(1, 1e5))
    .requiredOption("--scale <n>", "divide lengths by", numberIn(0.01, 1000))
    .requiredOption("--seed <n>", "of arrivals and lengths", wholeNumber(0, 1e6))
    .requiredOption("--threads <n>", "of the engine", wholeNumber(1, 512))
    .option("--classes <file|list>", "SLO classes")
    .option("--trace <app=file>", "lengths of an app; repeatable", collect, [])
    .requiredOption("--cache <folder>", "for its profile")
    .requiredOption("--out <file>", "where the steps go")
    .parse()
    .opts<Options>()
  writeFileSync(options.out, JSON.stringify(await serve(options)))
}

async function serve(options: Options): Promise<Window> {
  const plan = planOf(options)
  const { engine, driver, cost, fit, hashes } = await open(options, plan)
  const steps = watched(driver, cost)
  const fromUs = driver.nowUs
  const apps = appsOf(plan)
  const attained = await Promise.all(
    plan.requests.map(async (request, index) => {
      const played = new Played(request, index, options)
      let atUs = fromUs + request.atMs * 1000
      for (const round of request.rounds) {
        await new Promise((done) => setTimeout(done, Math.max(0, (atUs - driver.nowUs) / 1000)))
        await played.round(driver, round, (prompt) => ({
          ...{ app: apps.indexOf(round.class), arrivalUs: atUs },
          prefix: hashes(prompt, engine.limits.blockTokens),
        }))
        atUs = driver.nowUs + (request.rounds[played.rounds]?.delayMs ?? 0) * 1000
      }
      return played.attained
    }),
  )
  await driver.close()
  return { fit, requests: attained.length, attained: attained.filter(Boolean).length, steps }
}

function planOf({ rate, duration, scale, seed, trace }: Options): Plan {
  return makePlan({
    ...{ scenario: "all", ratePerSec: rate, durationMs: duration * 1000, seed, scale },
    ...{ arrivals: "gamma", burstiness: 0.25, maxSequenceTokens: CONTEXT_TOKENS },
    traces: readTraces(trace, "all", "gamma"),
  })
}

const CONTEXT_TOKENS = 1024

function appsOf(plan: Plan): string[] {
  return [...new Set(plan.requests.flatMap(({ rounds }) => rounds.map((round) => round.class)))]
}

/** The checkout's engine, profile and driver. */
async function open({ root, model, threads, cache }: Options, plan: Plan) {
  const load = (path: string) => import(join(resolve(root), path))
  const { openLlama } = await load("src/engine/llama/engine.ts")
  const { loadOrProfile } = await load("src/profile/profile.ts")
  const { ReplicaDriver: Driver } = await load("src/replica/driver.ts")
  const { prefixHashes } = await load("src/serve/prefix.ts")
  const found = await resolveModel(model, { fallback: false })
  const size = { maxSequences: 32, contextTokens: CONTEXT_TOKENS, maxBatchTokens: 512 }
  const engine: Engine = await openLlama({ modelPath: found.path, threads, ...size })
  const profile = await loadOrProfile(engine, { cacheDir: cache, quick: true, threads, waits: threadWaits })
  const apps = appsOf(plan).length
  const config = { limits: engine.limits, cost: profile.model, policy: "slos-serve", apps }
  const driver: ReplicaDriver = new Driver({ engine, config })
  const hashes: (prompt: Int32Array, blockTokens: number) => number[] = prefixHashes
  const cost: CostModel = profile.model
  return { engine, driver, hashes, cost, fit: { r2: profile.r2 as number, mape: profile.mape as number } }
}

/** The driver's steps, as they end. */
function watched(driver: ReplicaDriver, cost: CostModel): Step[] {
  const steps: Step[] = []
  let gcUs = 0
  const collections = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) gcUs += entry.duration * 1000
  })
  collections.observe({ entryTypes: ["gc"] })
  let endedUs = driver.nowUs
  let begun = { atUs: endedUs, gcUs, waits: threadWaits.begin() }
  driver.observe((effect, nowUs) => {
    if (effect.type === "run") begun = { atUs: nowUs, gcUs, waits: threadWaits.begin() }
  })
  driver.observeSteps(({ batch, durationUs, failure }) => {
    if (failure !== null) throw new Error(`a step failed: ${failure}`)
    steps.push({
      sequences: batch.items.length,
      tokens: batch.items.reduce((sum, { tokens }) => sum + tokens, 0),
      prefill: batch.items.some(({ tokens }) => tokens > 1),
      idleUs: Math.round(Math.max(0, begun.atUs - endedUs)),
      modelUs: Math.round(stepUs(cost, shapeOf(batch.items, cost))),
      predictedUs: batch.predictedUs,
      us: durationUs,
      waitedUs: Math.round(durationUs - begun.waits.ownUs(durationUs)),
      gcUs: Math.round(gcUs - begun.gcUs),
    })
    endedUs = driver.nowUs
  })
  return steps
}

/** One request of the plan, round by round. */
class Played {
  attained = true
  rounds = 0
  readonly #request: PlannedRequest
  readonly #index: number
  readonly #options: Options
  readonly #history: number[] = []

  constructor(request: PlannedRequest, index: number, options: Options) {
    this.#request = request
    this.#index = index
    this.#options = options
  }

  /** Its next round; `more` is what the submission has besides. */
  async round(
    driver: ReplicaDriver,
    round: PlannedRound,
    more: (prompt: Int32Array) => Pick<Submission, "app" | "prefix" | "arrivalUs">,
  ): Promise<void> {
    const { seed, classes } = this.#options
    const words = { nonce: String(seed), tokenRange: { from: 32, to: 256 } }
    this.#history.push(...promptOf(this.#request, this.#index, this.rounds++, words))
    const prompt = Int32Array.from(this.#history)
    const slo = sloOf(roundSlo(round, prompt.length, readClasses(classes), undefined))
    const outcome = await new Promise<boolean>((done) => {
      driver.submit({
        ...more(prompt),
        ...{ prompt, slo, session: this.#request.session === null ? -1 : this.#index, tier: "slo" },
        ...{ maxOutputTokens: round.outputTokens, sampling: { ...GREEDY, ignoreEos: true } },
        thinking: round.thinkingTokens > 0,
        onTokens: this.#phases(round),
        onEnd: (end) => done(end.outcome?.attained === true),
      })
    })
    this.attained &&= outcome
  }

  /** Tells where thinking ends, by the plan. */
  #phases({ thinkingTokens }: PlannedRound): Submission["onTokens"] {
    let before = thinkingTokens
    return ({ tokens }) => {
      this.#history.push(...tokens)
      const answeringFrom = thinkingTokens > 0 && before >= 0 && before < tokens.length ? before : -1
      before -= tokens.length
      return { stopped: false, answeringFrom }
    }
  }
}

function sloOf({ ttftMs, tpotMs, thinkingTpotMs, maxGapMs }: ReturnType<typeof roundSlo>): Slo {
  return {
    ...{ ttftUs: ttftMs * 1000, ttftSlowdown: 0, tpotUs: tpotMs * 1000 },
    ...{ thinkingTpotUs: thinkingTpotMs * 1000, maxGapUs: maxGapMs * 1000 },
  }
}

await main()
