/** Planning, run through before the first engine is connected: V8 compiles what has run often, and while it has not a plan takes
 * several times as long. Those would be the plans of an engine's first steps. */
import type { SloClasses } from "../config/slo-classes.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import { encodeFrame, FrameReader } from "../wire/frames.ts"
import { columnOf } from "../wire/planner/columns.ts"
import {
  type Arrived,
  type EngineMessage,
  type Landed,
  type PlanMessage,
  readToPlanner,
  type StepMessage,
  type ToPlanner,
  toWire,
} from "../wire/planner/messages.ts"
import { EngineSession } from "./engine-session.ts"
import { PlannerTenants } from "./planner-tenants.ts"
import { StepTimes } from "./step-times.ts"

export interface WarmUpOptions {
  classes: SloClasses
  policy: PolicyName
  policyOptions: Partial<PolicyOptions>
}

const MOST_STEPS = 600
const ENGINE: EngineMessage = {
  ...{ type: "engine", name: "warm-up", model: "none", device: "none", dtype: "float32" },
  limits: {
    ...{ kvTokens: 65_536, blockTokens: 16, maxSequences: 64, maxBatchTokens: 2048, contextTokens: 8192 },
    minChunkTokens: 16,
  },
  ...{ depth: 2, prefixCaching: true, maxDrafts: 0, tellsThinking: false, eager: true },
  ...{ tensorParallel: 1, pipelineParallel: 1, dataRank: 0, captureSizes: [], graphMode: "NONE" },
  ...{ vllmVersion: "0", pluginVersion: "0" },
}
const OUTPUT_TOKENS = 40
const STEP_US = 10_000

/** Takes `forMs`, or less. Leaves nothing behind. Returns how many plans were made. */
export function warmUp({ classes, policy, policyOptions }: WarmUpOptions, forMs: number): number {
  const session = new EngineSession({
    ...{ engine: ENGINE, classes, tenants: new PlannerTenants({}), policy, policyOptions, recorder: null },
    stepTimes: new StepTimes(ENGINE, { cacheDir: null, log: () => {} }),
    sink: { observed: () => {}, scheduled: () => {}, mistaken: () => {}, answered: () => {}, log: () => {} },
  })
  const reader = new FrameReader()
  const names = classes.all.map(({ name }) => name)
  const said = new Said()
  const endMs = performance.now() + forMs
  let plans = 0
  while (plans < MOST_STEPS && performance.now() < endMs) {
    // As over the socket.
    const [frame] = reader.push(encodeFrame(toWire(said.next(names[plans % names.length]))))
    session.take(readToPlanner(frame) as StepMessage, said.nowUs)
    said.plan = session.plan(said.seq)
    encodeFrame(toWire(said.plan))
    plans++
  }
  session.close()
  return plans
}

/** What an engine would say that runs each plan. */
class Said {
  seq = 0
  nowUs = 0
  plan: PlanMessage | null = null
  /** Known tokens, and those of the prompt. */
  readonly #live = new Map<number, { known: number; prompt: number }>()
  #flying: { seq: number; plan: PlanMessage } | null = null
  #nextId = 1

  next(sloClass: string | undefined): ToPlanner {
    const seq = ++this.seq
    this.nowUs += STEP_US
    const landed = this.#flying === null ? [] : [this.#land(this.#flying)]
    const plan = this.plan?.batch ? this.plan : null
    this.#flying = plan === null ? null : { seq, plan }
    return {
      ...{ type: "step", seq, nowUs: this.nowUs, landed, arrived: [this.#arrival(sloClass)] },
      ran: plan === null ? null : { batch: plan.batch, atUs: this.nowUs, exact: true },
    }
  }

  #land({ seq, plan: { ids, positions, tokens } }: { seq: number; plan: PlanMessage }): Landed {
    const produced = new Float64Array(ids.length)
    const stopped: number[] = []
    for (let i = 0; i < ids.length; i++) {
      const request = this.#live.get(ids[i]!)
      if (request === undefined || positions[i]! + tokens[i]! < request.known) continue
      produced[i] = 1
      if (++request.known < request.prompt + OUTPUT_TOKENS) continue
      stopped.push(ids[i]!)
      this.#live.delete(ids[i]!)
    }
    const isUsual = produced.every((count) => count === 1)
    return {
      ...{ step: seq, atUs: this.nowUs, durationUs: STEP_US, ...(!isUsual && { ids, produced }) },
      ...(stopped.length > 0 && { stopped: columnOf(stopped) }),
    }
  }

  #arrival(sloClass: string | undefined): Arrived {
    const id = this.#nextId++
    const promptTokens = 16 + ((id * 167) % 400)
    this.#live.set(id, { known: promptTokens, prompt: promptTokens })
    return {
      ...{ id, ageUs: 500, promptTokens, maxOutputTokens: OUTPUT_TOKENS, lora: null, waitsForGrammar: false },
      slo: sloClass === undefined ? {} : { slo_class: sloClass },
      prefix: columnOf(Array.from({ length: Math.floor(promptTokens / 16) }, (_, block) => id * 64 + block)),
    }
  }
}
