/** A planner behind the port that all replicas have, for gateways that ask it: it answers offers and says how busy its engines
 * are. Requests go to the engines' own API; the gateway that sends them there asks here first (docs/vllm.md). */
import type { RequestSpec } from "../core/protocol.ts"
import {
  DECLINED,
  type Digest,
  type Job,
  type JobId,
  type JobSink,
  type Offer,
  type ReplicaHost,
  refuse,
} from "../replica/host.ts"
import { sumOf } from "../replica/summed-snapshot.ts"
import { WatchedHost } from "../replica/watched-host.ts"
import { sessionNumber } from "../serve/prefix.ts"
import { infoOf } from "./engine-info.ts"
import type { EngineSession } from "./engine-session.ts"
import type { PlannerTenants } from "./planner-tenants.ts"

/** Not a request's id: those begin at 1. */
const OFFERED = 0
const NO_ENGINE = "no engine is connected to the planner"

export class PlannerReplica extends WatchedHost implements ReplicaHost {
  readonly #tenants: PlannerTenants
  readonly #sessions: () => readonly EngineSession[]

  constructor(tenants: PlannerTenants, sessions: () => readonly EngineSession[]) {
    super("planner", NO_ENGINE)
    this.#tenants = tenants
    this.#sessions = sessions
  }

  /** The engine came or went. */
  changed(session: EngineSession): void {
    if (this.state === "closed") return
    this.serves(infoOf(session))
    if (this.#sessions().length > 0) this.become("ready", "")
    else this.become("starting", NO_ENGINE)
  }

  /** Any of its engines would. `Job.promptTokens` says how long the prompt is: none is read here. */
  async offer(job: Job, _deadlineMs: number): Promise<Offer> {
    const { promptTokens = 0 } = job
    if (promptTokens === 0) return DECLINED
    const takes = this.#sessions().some((session) => session.offer(this.#specOf(job, promptTokens, session)))
    return { takes, promptTokens }
  }

  submit(job: Job, sink: JobSink): void {
    refuse(job, sink, "a planner computes nothing: the request goes to its engine's own API")
  }

  cancel(_id: JobId): void {}

  async withdraw(_id: JobId): Promise<boolean> {
    return false
  }

  digest(): Digest {
    const snapshot = sumOf(this.#sessions().map((session) => session.snapshot()))
    const engine = { state: "ok" as const, detail: "", trips: 0, downUs: { hung: 0, failing: 0 } }
    return { snapshot, ageUs: 0, engine }
  }

  async drain(): Promise<void> {
    this.become("draining", "it is shutting down")
  }

  giveUp(): void {}

  async close(): Promise<void> {
    this.become("closed", "it is closed")
  }

  #specOf({ generation, ageUs }: Job, promptTokens: number, session: EngineSession): RequestSpec {
    const { slo, maxTokens } = generation
    const { number, sessionSalt } = this.#tenants.of(generation.tenant)
    const room = session.mostTokens - promptTokens
    return {
      ...{ id: OFFERED, app: slo.class.app, tenant: number, prefix: [], promptTokens },
      session: generation.session === null ? -1 : sessionNumber(generation.session, sessionSalt),
      arrivalUs: Math.round(session.nowUs - ageUs),
      maxOutputTokens: Math.max(1, Math.min(maxTokens ?? room, room)),
      ...{ slo: slo.slo, tier: slo.tier, worth: slo.class.worth, thinking: slo.thinking },
    }
  }
}
