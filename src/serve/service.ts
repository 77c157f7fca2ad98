/** One served model with everything that belongs to it, and the state of the server around it. */

import type { SloClasses } from "../config/slo-classes.ts"
import type { Engine } from "../engine/port.ts"
import { type UserError, userError } from "../errors.ts"
import type { ReplicaDriver } from "../replica/driver.ts"
import { AttainmentWindow } from "../telemetry/attainment.ts"
import { Metrics } from "../telemetry/metrics.ts"
import { Intake, type IntakeOptions } from "./intake.ts"

export interface ServiceOptions extends IntakeOptions {
  engine: Engine
  driver: ReplicaDriver
  classes: SloClasses
  policy: string
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

  constructor(options: ServiceOptions) {
    const { engine, driver, classes } = options
    this.engine = engine
    this.driver = driver
    this.classes = classes
    this.policy = options.policy
    this.intake = new Intake(engine, driver, options)
    this.attainment = new AttainmentWindow(classes.all.length)
    this.metrics = new Metrics({
      modelName: engine.model.name,
      classes: classes.all.map((c) => c.name),
      snapshot: () => driver.snapshot(),
      watch: driver.watch,
      queue: driver.queue,
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
