/** One served model with everything that belongs to it, and the state of the server around it. */

import type { SloClasses } from "../config/slo-classes.ts"
import { type UserError, userError } from "../errors.ts"
import { Journal, type JournalOptions } from "../explain/journal.ts"
import type { Advisor } from "../scale/advisor.ts"
import { AttainmentWindow } from "../telemetry/attainment.ts"
import { Metrics } from "../telemetry/metrics.ts"
import { registerScale } from "../telemetry/scale-gauges.ts"
import type { TenantFigures } from "../telemetry/tenant-figures.ts"
import { ArrivalRecorder } from "./arrivals.ts"
import { AskedWatch } from "./asked.ts"
import { Explainer, type LogLine } from "./explainer.ts"
import type { Front } from "./front.ts"
import { DEFAULT_MAX_TOKENS } from "./intake.ts"
import { type Tenant, Tenants } from "./tenants.ts"

export interface ServiceOptions {
  front: Front
  classes: SloClasses
  policy: string
  /** Default: one. */
  tenants?: Tenants
  /** Most classes, those that come and go while it serves included. Default: those that there are. */
  mostApps?: number
  /** Longest answer of a request that does not say. Default: the intake's. */
  defaultMaxTokens?: number
  /** Takes a line for each request that does not come by the API. Default: there are none. */
  log?: LogLine
  /** How many answers are remembered. */
  journal?: JournalOptions
  /** See MetricsOptions. */
  ownProcess?: boolean
}

/** Over which arrival rates are told beside what was missed. */
const RATE_S = 10

/** A tenant, or several of which none has figures of its own, as shown. */
export interface TenantRow {
  name: string
  weight: number
  /** Requests that have a place in the queue, every answer counted. */
  live: number
  figures: TenantFigures
}

export class Service {
  readonly front: Front
  readonly classes: SloClasses
  readonly policy: string
  readonly metrics: Metrics
  readonly attainment: AttainmentWindow
  readonly recorder = new ArrivalRecorder()
  readonly explainer: Explainer
  readonly asked: AskedWatch
  #advisor: Advisor | null = null
  readonly startedMs = Date.now()
  readonly tenancy: Tenants
  readonly defaultMaxTokens: number

  constructor(options: ServiceOptions) {
    const { front, classes, policy, tenants = new Tenants(), log = () => {}, journal } = options
    this.front = front
    this.classes = classes
    this.policy = policy
    this.tenancy = tenants
    this.defaultMaxTokens = options.defaultMaxTokens ?? DEFAULT_MAX_TOKENS
    this.attainment = new AttainmentWindow(options.mostApps ?? classes.all.length)
    const requestsPerSec = () => this.attainment.rates(front.nowUs, RATE_S).requestsPerSec
    this.explainer = new Explainer(requestsPerSec, new Journal(journal))
    this.metrics = new Metrics({
      modelName: front.model.name,
      classes: () => classes.names,
      snapshot: () => front.snapshot(),
      watch: front.watch,
      queue: front.queue,
      tenants: () => this.tenants,
      replicas: () => front.replicas,
      limits: () => front.planner?.limits ?? null,
      contextTokens: front.contextTokens,
      oldestMs: () => this.asked.oldestMs,
      ...(options.ownProcess !== undefined && { ownProcess: options.ownProcess }),
    })
    this.asked = new AskedWatch((asked) => this.metrics.request(asked))
    front.onAnswered?.((record) => this.explainer.add([record], log))
    front.onObserved(({ effects, steps }) => {
      const { nowUs } = front
      for (const effect of effects) {
        this.metrics.observe(effect, nowUs)
        this.attainment.observe(effect, nowUs)
      }
      for (const step of steps) {
        this.metrics.step(step)
        this.attainment.step(step.durationUs, nowUs)
      }
    })
  }

  /** What the longest prompt follows from. */
  get promptSizes(): { contextTokens: number; longestTokenBytes: number } {
    const { contextTokens, longestTokenBytes } = this.front
    return { contextTokens, longestTokenBytes }
  }

  /** By tenant, those first that have a weight in the configuration. */
  get tenants(): TenantRow[] {
    const { figures } = this.front
    const live = new Map<string, number>()
    for (const { name, number } of this.tenancy.all) {
      const shown = figures.shownAs(name)
      live.set(shown, (live.get(shown) ?? 0) + this.front.queue.takenBy(number))
    }
    return [...figures.all].map(([name, own]) => ({
      ...{ name, weight: this.tenancy.weightOf(name), live: live.get(name) ?? 0, figures: own },
    }))
  }

  /** Its forecasts are in the metrics from now on, and end with the service. */
  advisedBy(advisor: Advisor): void {
    this.#advisor = advisor
    registerScale(this.metrics.registry, advisor)
  }

  async close(): Promise<void> {
    await this.#advisor?.close()
    this.metrics.close()
    await this.front.close()
  }
}

/** `starting`: the port is open but the model is not loaded or warm. `draining`: accepts no more. */
export type Phase = "starting" | "ready" | "draining"

/** What the HTTP server serves: it listens before the model is there, so that a taken port is found at once. */
export class ServiceHost {
  phase: Phase = "starting"
  /** What is being done, for people who ask. */
  detail = "starting"
  service: Service | null = null
  readonly tenants: Tenants

  constructor(tenants = new Tenants()) {
    this.tenants = tenants
  }

  /** Of a name, before the request has a place in the queue. */
  tenant(name: string): Tenant {
    const queue = this.service?.front.queue
    return this.tenants.of(name, (number) => !queue?.takenBy(number))
  }

  /** Why it takes no requests just now, or null. */
  get refusal(): UserError | null {
    if (this.phase === "draining") return userError("shutting_down")
    if (this.phase === "starting" || this.service === null)
      return userError("not_ready", { detail: this.detail })
    const { state, detail } = this.service.front.watch
    return state === "ok" ? null : userError("engine_down", { detail })
  }

  ready(service: Service): void {
    this.service = service
    this.phase = "ready"
    this.detail = "ready"
  }

  /** Accepts no more; resolves when everything accepted has ended. */
  async drain(): Promise<void> {
    this.phase = "draining"
    this.detail = "the server is shutting down"
    await this.service?.front.drain()
  }
}
