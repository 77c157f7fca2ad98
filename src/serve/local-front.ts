/** What answers requests where there is one replica, in this very process: its intake and its driver. */
import type { Snapshot } from "../core/protocol.ts"
import type { Engine, ModelInfo } from "../engine/port.ts"
import type { ReplicaDriver } from "../replica/driver.ts"
import type { EngineHealth, ReplicaHost } from "../replica/host.ts"
import type { Observed } from "../replica/observed.ts"
import { DriverObserver } from "../replica/observer.ts"
import { type PlannerView, plannerOf } from "../replica/planner-view.ts"
import type { FiguresByTenant } from "../telemetry/tenant-figures.ts"
import type { AnswerSink } from "../text/answer.ts"
import type { Front, QueueView, ReplicaRow, Shares } from "./front.ts"
import { InProcessHost } from "./in-process.ts"
import { type GenerationRequest, Intake, type IntakeOptions } from "./intake.ts"
import type { TokenReader } from "./token-reader.ts"

export class LocalFront implements Front {
  readonly engineHere = true
  readonly generates = true
  readonly engine: Engine
  readonly driver: ReplicaDriver
  readonly intake: Intake
  readonly replicas: readonly ReplicaRow[] = []
  readonly #observer: DriverObserver
  #replica: ReplicaHost | null = null

  constructor(engine: Engine, driver: ReplicaDriver, options: IntakeOptions = {}) {
    this.engine = engine
    this.driver = driver
    this.intake = new Intake(engine, driver, options)
    this.#observer = new DriverObserver(driver)
  }

  get model(): ModelInfo {
    return this.engine.model
  }
  get contextTokens(): number {
    return this.engine.limits.contextTokens
  }
  get longestTokenBytes(): number {
    return this.engine.tokenizer.longestTokenBytes
  }
  get tokens(): TokenReader {
    return this.intake.tokens
  }
  get nowUs(): number {
    return this.driver.nowUs
  }
  get queue(): QueueView {
    return this.driver.queue
  }
  get figures(): FiguresByTenant {
    return this.intake.figures
  }
  get watch(): EngineHealth {
    return this.driver.watch
  }
  get planner(): PlannerView {
    return plannerOf(this.driver.replica)
  }
  get replica(): ReplicaHost {
    this.#replica ??= new InProcessHost(this.intake)
    return this.#replica
  }

  renew({ maxQueue, weights }: Shares): void {
    this.driver.renew(maxQueue, weights)
  }

  tokenBytes(token: number): Uint8Array | null {
    return token >= 0 && token < this.model.vocabSize ? this.engine.tokenizer.bytes(token) : null
  }

  snapshot(): Snapshot {
    return this.driver.snapshot()
  }

  onObserved(listener: (observed: Observed) => void): void {
    this.#observer.on(listener)
  }

  start(requests: readonly GenerationRequest[], sinks: readonly AnswerSink[]): Promise<void> {
    return this.intake.start(requests, sinks)
  }

  drain(): Promise<void> {
    return this.driver.drain()
  }

  async close(): Promise<void> {
    await this.intake.close()
    await this.driver.close()
  }
}
