/** Prometheus metrics: vLLM's names where the meaning is the same (`vllm-metrics.ts`), so that existing dashboards and
 * gateways work, and slos_serve_* for what only this server has. Fed from the driver's effects and its snapshot. */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { Counter, collectDefaultMetrics, Histogram, Registry } from "prom-client"
import type {
  DemoteReason,
  EngineLimits,
  Outcome,
  RejectReason,
  RequestId,
  Snapshot,
} from "../core/protocol.ts"
import type { ObservedEffect, ObservedStep } from "../replica/observed.ts"
import { type ReplicaSource, registerGauges, type TenantSource, type WatchSource } from "./gauges.ts"
import { TallyHistogram } from "./tally.ts"
import { type AskedAndGot, VllmMetrics } from "./vllm-metrics.ts"

export interface MetricsOptions {
  modelName: string
  /** Class names by app index. */
  classes: () => readonly string[]
  snapshot: () => Snapshot
  /** Left out: an engine that is never down. */
  watch?: WatchSource
  queue?: { readonly limit: number; readonly taken: number }
  tenants?: () => readonly TenantSource[]
  replicas?: () => readonly ReplicaSource[]
  limits?: () => EngineLimits | null
  contextTokens: number
  /** How long the request has waited that has waited longest for its first token, ms. */
  oldestMs?: () => number
  /** Whether figures of this process are among them. Default: they are. They watch it for as long as it runs. */
  ownProcess?: boolean
}

const GAP_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 7.5, 10, 20, 40, 80, 160]
const STEP_S = [
  0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5,
]
const TOKENS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000]
const PLANNER_S = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2]
const RATIO = [0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 4]

const DEMOTED: readonly DemoteReason[] = ["wontFit", "violated", "revoked"]
const REJECTED: readonly RejectReason[] = ["promptTooLong", "queueFull", "shuttingDown", "engineDown"]

const LOOP_RESOLUTION_MS = 10
/** Gauges of prom-client under names of counters; `nodejs_active_resources` and kin say the same by type. */
const MISNAMED = [
  "nodejs_active_handles_total",
  "nodejs_active_requests_total",
  "nodejs_active_resources_total",
]

export class Metrics {
  readonly registry = new Registry()
  readonly #classes: () => readonly string[]
  /** Time of the last token of each request that is producing. */
  readonly #lastToken = new Map<RequestId, number>()
  readonly #loop: ReturnType<typeof monitorEventLoopDelay>
  readonly #m: ReturnType<typeof createMetrics>
  readonly #vllm: VllmMetrics

  constructor(options: MetricsOptions) {
    this.#classes = options.classes
    this.registry.setDefaultLabels({})
    if (options.ownProcess ?? true) collectDefaultMetrics({ register: this.registry })
    for (const name of MISNAMED) this.registry.removeSingleMetric(name)
    this.#loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS })
    this.#loop.enable()
    this.#m = createMetrics(this.registry)
    this.#vllm = new VllmMetrics({ ...options, registry: this.registry })
    const loop = { loop: this.#loop, loopResolutionMs: LOOP_RESOLUTION_MS }
    registerGauges(this.registry, { ...options, ...loop })
    // There from the beginning, so that their rates are 0 and not unknown.
    for (const name of options.classes()) {
      for (const attained of ["true", "false"]) this.#m.attained.inc({ class: name, attained }, 0)
      this.#m.bestEffort.inc({ class: name }, 0)
    }
    for (const reason of DEMOTED) this.#m.demotions.inc({ reason }, 0)
    for (const reason of REJECTED) this.#m.rejections.inc({ reason }, 0)
  }

  observe(effect: ObservedEffect, nowUs: number): void {
    const m = this.#m
    if (effect.type === "token") this.#token(effect.id, effect.count, nowUs)
    else if (effect.type === "finished") {
      this.#lastToken.delete(effect.id)
      this.#finished(effect.reason, effect.outcome)
    } else if (effect.type === "admitted") m.admissions.inc()
    else if (effect.type === "demoted") m.demotions.inc({ reason: effect.reason })
    else if (effect.type === "promoted") m.promotions.inc()
    else if (effect.type === "preempted") {
      m.preemptions.inc()
      this.#vllm.preempted()
    } else if (effect.type === "rejected") m.rejections.inc({ reason: effect.reason })
  }

  step(step: ObservedStep): void {
    const m = this.#m
    this.#vllm.step(step)
    m.planner.observe(step.planUs / 1e6)
    m.batchTokens.observe(step.tokens)
    m.batchRequests.observe(step.requests)
    if (step.failed) {
      m.failedSteps.inc()
      return
    }
    m.stepSeconds.observe(step.durationUs / 1e6)
    if (step.predictedUs > 0) m.stepRatio.observe(step.durationUs / step.predictedUs)
  }

  /** Every answer of a request has ended. */
  request(asked: AskedAndGot): void {
    this.#vllm.request(asked)
  }

  close(): void {
    this.#loop.disable()
    this.registry.clear()
  }

  /** vLLM's inter-token latency: one observation per token. */
  #token(id: RequestId, count: number, nowUs: number): void {
    const last = this.#lastToken.get(id)
    this.#lastToken.set(id, nowUs)
    this.#vllm.tokens(count, last === undefined ? undefined : nowUs - last)
  }

  #finished(reason: string, outcome: Outcome): void {
    const m = this.#m
    const name = this.#classes()[outcome.app] ?? String(outcome.app)
    this.#vllm.ended(reason, outcome)
    m.cached.inc(outcome.cachedTokens)
    if (reason !== "stop" && reason !== "length") return
    if (outcome.outputTokens > 1) m.maxGap.observe({ class: name }, outcome.maxGapUs / 1e6)
    if (outcome.tier === "bestEffort") {
      m.bestEffort.inc({ class: name })
      return
    }
    m.attained.inc({ class: name, attained: String(outcome.attained) })
    for (const stage of outcome.stages)
      m.stageAttained.inc({ class: name, stage: stage.stage, attained: String(stage.attained) })
  }
}

function createMetrics(registry: Registry) {
  const registers = [registry]
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name, help, labelNames, registers })
  const histogram = (name: string, help: string, buckets: readonly number[]) =>
    new TallyHistogram({ name, help, registry }, buckets)
  return {
    attained: counter("slos_serve_requests_total", "Ended SLO-tier requests, by attainment of all stages.", [
      "class",
      "attained",
    ]),
    stageAttained: counter("slos_serve_stages_total", "Ended stages of SLO-tier requests, by attainment.", [
      "class",
      "stage",
      "attained",
    ]),
    bestEffort: counter("slos_serve_best_effort_requests_total", "Ended best-effort requests.", ["class"]),
    maxGap: new Histogram({
      name: "slos_serve_max_gap_seconds",
      help: "Longest time between two tokens of an ended request.",
      ...{ buckets: GAP_S, labelNames: ["class"], registers },
    }),
    cached: counter("slos_serve_cached_prompt_tokens_total", "Prompt tokens whose KV was shared."),
    admissions: counter("slos_serve_admissions_total", "SLOs promised."),
    demotions: counter("slos_serve_demotions_total", "Moves to the best-effort tier.", ["reason"]),
    promotions: counter("slos_serve_promotions_total", "Moves back to the SLO tier."),
    preemptions: counter("slos_serve_preemptions_total", "Requests whose KV was dropped, to be recomputed."),
    rejections: counter("slos_serve_rejections_total", "Requests refused.", ["reason"]),
    batchTokens: histogram("slos_serve_batch_tokens", "Tokens per batch.", TOKENS),
    batchRequests: histogram("slos_serve_batch_requests", "Requests per batch.", TOKENS),
    failedSteps: counter("slos_serve_failed_steps_total", "Engine steps that failed."),
    planner: histogram("slos_serve_planner_seconds", "Time to decide one batch.", PLANNER_S),
    stepSeconds: histogram("slos_serve_step_seconds", "Engine time per batch.", STEP_S),
    stepRatio: histogram("slos_serve_step_time_ratio", "Actual over predicted step time.", RATIO),
  }
}
