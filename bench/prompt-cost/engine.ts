/** A process with one engine and nothing else, for prompt-cost.ts: computes prompts as it is told, and says what they took. */
import type { CostModel } from "../../src/core/cost.ts"
import { type LlamaEngine, openLlama } from "../../src/engine/llama/engine.ts"
import type { LlamaOptions } from "../../src/engine/llama/options.ts"
import { GREEDY } from "../../src/engine/port.ts"
import { cacheFolder } from "../../src/models/cache.ts"
import { loadOrProfile } from "../../src/profile/profile.ts"
import { ReplicaDriver } from "../../src/replica/driver.ts"

export type Ask =
  | { type: "open"; options: LlamaOptions; profile: boolean }
  /** In steps of at most so many tokens; 0: as the planner has it. */
  | { type: "prompt"; tokens: number[]; most: number }

/** CPU and wall time, and the sizes of the steps. */
export interface Took {
  cpuUs: number
  wallUs: number
  steps: number[]
}

let engine: LlamaEngine
let driver: ReplicaDriver | null = null
let nextId = 1
/** Of the prompt under way, where the planner makes them. */
let plannedSteps: number[] = []

async function open({ options, profile }: Extract<Ask, { type: "open" }>): Promise<void> {
  engine = await openLlama(options)
  if (!profile) return
  const { threads } = options
  const { model } = await loadOrProfile(engine, {
    ...{ cacheDir: cacheFolder(), quick: true, threads },
    key: { library: "auto", kvType: null, gpuLayers: null },
  })
  driver = driverOf(model)
  driver.observeSteps(({ batch }) =>
    plannedSteps.push(batch.items.reduce((sum, item) => sum + item.tokens, 0)),
  )
}

function driverOf(cost: CostModel): ReplicaDriver {
  return new ReplicaDriver({
    engine,
    config: { limits: engine.limits, cost, policy: "slos-serve", apps: 1, options: {} },
  })
}

async function inSteps(prompt: Int32Array, most: number): Promise<number[]> {
  const id = nextId++
  const step = { number: 0, evict: [], release: [], predictedUs: 0 }
  engine.open(id, prompt, { ...GREEDY, ignoreEos: true })
  const steps: number[] = []
  for (let position = 0; position < prompt.length; ) {
    const tokens = Math.min(most, prompt.length - position)
    const sample = position + tokens === prompt.length
    const output = await engine.execute({ ...step, items: [{ id, position, tokens, sample, draft: 0 }] })
    if (!output.ok) throw new Error(output.message)
    steps.push(tokens)
    position += tokens
  }
  await engine.execute({ ...step, items: [], release: [id] })
  return steps
}

async function planned(prompt: Int32Array): Promise<number[]> {
  plannedSteps = []
  await new Promise<void>((resolve) => {
    driver!.submit({
      ...{ app: 0, session: -1, prompt, prefix: [], maxOutputTokens: 1, tier: "slo", thinking: false },
      sampling: { ...GREEDY, ignoreEos: true },
      slo: {
        ttftUs: 1e6,
        ttftSlowdown: 0,
        tpotUs: 3e5,
        thinkingTpotUs: 3e5,
        maxGapUs: Number.POSITIVE_INFINITY,
      },
      onTokens: () => ({ stopped: false, answeringFrom: -1 }),
      onEnd: () => resolve(),
    })
  })
  return plannedSteps
}

async function took(run: () => Promise<number[]>): Promise<Took> {
  const cpu = process.cpuUsage()
  const from = performance.now()
  const steps = await run()
  const wallUs = (performance.now() - from) * 1000
  const { user, system } = process.cpuUsage(cpu)
  return { cpuUs: user + system, wallUs, steps }
}

process.on("message", async (ask: Ask) => {
  if (ask.type === "open") {
    await open(ask)
    process.send!("ready")
    return
  }
  const prompt = Int32Array.from(ask.tokens)
  process.send!(await took(() => (ask.most === 0 ? planned(prompt) : inSteps(prompt, ask.most))))
})
process.on("disconnect", () => process.exit(0))
