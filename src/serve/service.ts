/** One served model with everything that belongs to it, and the state of the server around it. */

import type { SloClasses } from "../config/slo-classes.ts"
import type { Engine } from "../engine/port.ts"
import { type UserError, userError } from "../errors.ts"
import type { ReplicaDriver } from "../replica/driver.ts"
import { AttainmentWindow } from "../telemetry/attainment.ts"
import { Metrics } from "../telemetry/metrics.ts"
import type { TenantFigures } from "../telemetry/tenant-figures.ts"
import { Intake, type IntakeOptions } from "./intake.ts"
import { type Tenant, Tenants } from "./tenants.ts"

export interface ServiceOptions extends IntakeOptions {
  engine: Engine
  driver: ReplicaDriver
  classes: SloClasses
  policy: string
}

/** A tenant, or several of which none has figures of its own, as shown. */
export interface TenantRow {
  name: string
  weight: number
  /** Requests that have a place in the queue, every answer counted. */
  live: number
  figures: TenantFigures
}

export class Service {
  readonly engine: Engine
  readonly driver: ReplicaDriver
  readonly classes: SloClasses
  readonly policy: string
  readonly intake: Intake
  readonly metrics: Metrics
  readonly attainment: AttainmentWindow
  readonly startedMs = Date.now()
  readonly #tenants: Tenants

  constructor(options: ServiceOptions) {
    const { engine, driver, classes } = options
    this.engine = engine
    this.driver = driver
    this.classes = classes
    this.policy = options.policy
    this.#tenants = options.tenants ?? new Tenants()
    this.intake = new Intake(engine, driver, { ...options, tenants: this.#tenants })
    this.attainment = new AttainmentWindow(classes.all.length)
    this.metrics = new Metrics({
      modelName: engine.model.name,
      classes: classes.all.map((c) => c.name),
      snapshot: () => driver.snapshot(),
      watch: driver.watch,
      queue: driver.queue,
      tenants: () => this.tenants,
    })
    driver.observe((effect, nowUs) => {
      this.metrics.observe(effect, nowUs)
      this.attainment.observe(effect, nowUs)
    })
    driver.observeSteps(({ batch, planUs, durationUs, failure, rows }) => {
      for (const row of rows) this.metrics.speculation(row.drafted, row.tokens.length - 1)
      this.metrics.step({ planUs, predictedUs: batch.predictedUs, durationUs, failed: failure !== null })
      this.attainment.step(durationUs, driver.nowUs)
    })
  }

  /** What the longest prompt follows from. */
  get promptSizes(): { contextTokens: number; longestTokenBytes: number } {
    const { limits, tokenizer } = this.engine
    return { contextTokens: limits.contextTokens, longestTokenBytes: tokenizer.longestTokenBytes }
  }

  /** By tenant, those first that have a weight in the configuration. */
  get tenants(): TenantRow[] {
    const { figures } = this.intake
    const live = new Map<string, number>()
    for (const { name, number } of this.#tenants.all) {
      const shown = figures.shownAs(name)
      live.set(shown, (live.get(shown) ?? 0) + this.driver.queue.takenBy(number))
    }
    return [...figures.all].map(([name, own]) => ({
      ...{ name, weight: this.#tenants.weightOf(name), live: live.get(name) ?? 0, figures: own },
    }))
  }

  async close(): Promise<void> {
    this.metrics.close()
    await this.intake.close()
    await this.driver.close()
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
    const queue = this.service?.driver.queue
    return this.tenants.of(name, (number) => !queue?.takenBy(number))
  }

  /** Why it takes no requests just now, or null. */
  get refusal(): UserError | null {
    if (this.phase === "draining") return userError("shutting_down")
    if (this.phase === "starting" || this.service === null)
      return userError("not_ready", { detail: this.detail })
    const { state, detail } = this.service.driver.watch
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
    await this.service?.driver.drain()
  }
}
