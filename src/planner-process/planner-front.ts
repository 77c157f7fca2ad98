/** All engines of a planner as the HTTP port shows them: state, metrics, page. It generates nothing itself. */
import type { Snapshot } from "../core/protocol.ts"
import type { ModelInfo } from "../engine/port.ts"
import { UserError } from "../errors.ts"
import type { AnswerRecord } from "../explain/record.ts"
import type { EngineHealth, ReplicaHost } from "../replica/host.ts"
import type { Observed, ObservedEffect, ObservedStep } from "../replica/observed.ts"
import { type PlannerView, plannerOf } from "../replica/planner-view.ts"
import { sumOf } from "../replica/summed-snapshot.ts"
import type { Front, QueueView, ReplicaRow } from "../serve/front.ts"
import type { FiguresByTenant } from "../telemetry/tenant-figures.ts"
import { modelOf } from "./engine-info.ts"
import type { EngineSession } from "./engine-session.ts"
import { PlannerReplica } from "./planner-replica.ts"
import type { PlannerTenants } from "./planner-tenants.ts"

/** Ids of one engine's requests must not be another's. */
const IDS_PER_ENGINE = 2 ** 40

const NO_ENGINE: ModelInfo = modelOf("no engine yet", 1)

export class PlannerFront implements Front {
  readonly engineHere = false
  readonly generates = false
  readonly longestTokenBytes = 1
  readonly tokens = null
  readonly replica: ReplicaHost
  readonly #tenants: PlannerTenants
  readonly #sessions: () => readonly EngineSession[]
  readonly #numbers = new Map<EngineSession, number>()
  readonly #listeners: ((observed: Observed) => void)[] = []
  readonly #answerListeners: ((record: AnswerRecord) => void)[] = []
  /** Connections of each name so far. */
  readonly #connected = new Map<string, number>()
  #joined = 0
  /** Of the last engine that was connected. */
  #last: EngineSession | null = null
  readonly #planner: PlannerReplica

  constructor(tenants: PlannerTenants, sessions: () => readonly EngineSession[]) {
    this.#tenants = tenants
    this.#sessions = sessions
    this.#planner = new PlannerReplica(tenants, sessions)
    this.replica = this.#planner
  }

  joined(session: EngineSession): void {
    const { name } = session.engine
    this.#numbers.set(session, this.#joined++)
    this.#connected.set(name, (this.#connected.get(name) ?? 0) + 1)
    this.#last = session
    this.#planner.changed(session)
  }

  left(session: EngineSession): void {
    this.#numbers.delete(session)
    this.#planner.changed(session)
  }

  observed(session: EngineSession, effects: readonly ObservedEffect[], steps: readonly ObservedStep[]): void {
    const base = (this.#numbers.get(session) ?? this.#joined) * IDS_PER_ENGINE
    const own = effects.map((effect) => ({ ...effect, id: effect.id + base }))
    for (const listener of this.#listeners) listener({ effects: own, steps })
  }

  answered(record: AnswerRecord): void {
    for (const listener of this.#answerListeners) listener(record)
  }

  get model(): ModelInfo {
    const engine = this.#last?.engine
    return engine === undefined ? NO_ENGINE : modelOf(engine.model, engine.limits.contextTokens)
  }
  get contextTokens(): number {
    return this.model.trainedContextTokens
  }
  get nowUs(): number {
    return performance.now() * 1000
  }
  get queue(): QueueView {
    return this.#tenants.queue
  }
  get figures(): FiguresByTenant {
    return this.#tenants.figures
  }
  get planner(): PlannerView | null {
    return this.#last === null ? null : plannerOf(this.#last.replica)
  }

  /** Down while no engine is connected. */
  get watch(): EngineHealth {
    const none = { trips: 0, downUs: { hung: 0, failing: 0 } }
    if (this.#sessions().length > 0) return { state: "ok", detail: "", ...none }
    return { state: "failing", detail: "no engine is connected", ...none }
  }

  get replicas(): readonly ReplicaRow[] {
    return this.#sessions().map((session) => {
      const { name } = session.engine
      const restarts = (this.#connected.get(name) ?? 1) - 1
      return { name, state: "ready", detail: "", snapshot: session.snapshot(), ageUs: 0, restarts }
    })
  }

  tokenBytes(): null {
    return null
  }

  snapshot(): Snapshot {
    return sumOf(this.#sessions().map((session) => session.snapshot()))
  }

  onObserved(listener: (observed: Observed) => void): void {
    this.#listeners.push(listener)
  }

  onAnswered(listener: (record: AnswerRecord) => void): void {
    this.#answerListeners.push(listener)
  }

  async start(): Promise<void> {
    throw new UserError(
      "This is a planner: it generates nothing. Send the request to the vLLM server that it plans for.",
      { status: 404, code: "unknown_url" },
    )
  }

  async drain(): Promise<void> {}
  async close(): Promise<void> {}
}
