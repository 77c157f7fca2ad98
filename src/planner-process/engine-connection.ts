/** The socket of one engine: hello, what it is, then its steps and their plans. */
import type { Socket } from "node:net"
import { Channel } from "../wire/channel.ts"
import {
  type EngineMessage,
  plannerHello,
  plannerRefusalOf,
  readToPlanner,
  type StepMessage,
  type ToPlanner,
  type ToPlugin,
  toWire,
} from "../wire/planner/messages.ts"
import type { ElbowRoom } from "./elbow-room.ts"
import { EngineSession } from "./engine-session.ts"
import type { PlannerFront } from "./planner-front.ts"
import type { PlannerOptions } from "./planner-options.ts"
import type { StepFigures } from "./step-figures.ts"

/** All engines of a planner, as one connection needs them. */
export interface Engines {
  readonly options: PlannerOptions
  readonly front: Pick<PlannerFront, "observed" | "answered">
  readonly figures: StepFigures
  readonly elbowRoom: ElbowRoom
  /** An engine of that name is connected. */
  has(name: string): boolean
  opened(session: EngineSession): void
  /** Once, also where there was no session. */
  ended(connection: EngineConnection, detail: string): void
}

const GREETING = {
  hello: plannerHello,
  refusalOf: plannerRefusalOf,
  refused: (message: string): ToPlugin => ({ type: "refused", message }),
}

export class EngineConnection {
  session: EngineSession | null = null
  readonly #engines: Engines
  readonly #channel: Channel<ToPlugin, ToPlanner>
  /** The last message that waits for its plan; 0: none. */
  #asked = 0
  /** When it was read, performance.now(). */
  #askedMs = 0
  #over = false

  constructor(socket: Socket, engines: Engines) {
    this.#engines = engines
    this.#channel = new Channel<ToPlugin, ToPlanner>(socket, {
      greeting: GREETING,
      toWire,
      read: readToPlanner,
      onMessage: (message) => this.#handle(message),
      onEnd: (_reason, detail) => this.#ended(detail),
    })
  }

  goodbye(message: string): Promise<void> {
    this.#channel.send({ type: "goodbye", message })
    return new Promise((done) => {
      this.#channel.close(done)
      this.#ended(message)
    })
  }

  #handle(message: ToPlanner): void {
    if (message.type === "engine") this.#open(message)
    else if (message.type === "step") this.#step(message)
  }

  #open(engine: EngineMessage): void {
    const refusal = this.#refusalOf(engine)
    if (refusal !== null) {
      this.#channel.send({ type: "refused", message: refusal })
      this.#channel.close()
      this.#ended(`engine ${engine.name} is refused: ${refusal}`)
      return
    }
    const { options, front, figures } = this.#engines
    const { classes, tenants, policy, policyOptions, stepTimesOf, recording, log, maxLagUs, version } =
      options
    const session: EngineSession = new EngineSession({
      ...{ engine, classes, tenants, policy, policyOptions, stepTimes: stepTimesOf(engine) },
      recorder: recording?.recorder() ?? null,
      sink: {
        observed: (effects, steps) => front.observed(session, effects, steps),
        answered: (record) => front.answered(record),
        scheduled: (of) => figures.scheduled(engine.name, of),
        mistaken: (mistake) => {
          const first = figures.mistaken(engine.name, mistake)
          if (first)
            log(
              `engine ${engine.name}: ${mistake.why} It is left out, as in all requests that have it.`,
              "warn",
            )
        },
        log,
      },
    })
    this.session = session
    this.#channel.send({ type: "ready", policy, version, maxLagUs })
    this.#engines.opened(session)
  }

  #refusalOf({ name, limits }: EngineMessage): string | null {
    if (this.session !== null) return "it has said already what it is"
    if (this.#engines.has(name)) return `an engine ${name} is connected already; give each a name of its own`
    const { kvTokens, blockTokens, minChunkTokens, maxBatchTokens } = limits
    if (kvTokens < blockTokens) return `${kvTokens} tokens of KV do not hold one block of ${blockTokens}`
    if (minChunkTokens > maxBatchTokens)
      return `least chunks of ${minChunkTokens} tokens do not fit steps of ${maxBatchTokens}`
    return null
  }

  #step(step: StepMessage): void {
    const { session } = this
    if (session === null) {
      this.#broken("it says steps before it says what it is")
      return
    }
    const nowMs = performance.now()
    if (step.core !== undefined) this.#engines.elbowRoom.engineOn(session.engine.name, step.core)
    this.#guarded(() => session.take(step, nowMs * 1000))
    // What it said while this process was busy is read in one go: only the last of it still wants a plan.
    if (this.#asked === 0) queueMicrotask(() => this.#answer(session))
    this.#asked = step.seq
    this.#askedMs = nowMs
  }

  #answer(session: EngineSession): void {
    const seq = this.#asked
    this.#asked = 0
    if (this.#over) return
    this.#guarded(() => this.#channel.send(session.plan(seq)))
    this.#engines.figures.answered(
      session.engine.name,
      session.lagUs,
      (performance.now() - this.#askedMs) * 1000,
    )
  }

  /** What the engine says may be nonsense, and the core may have a fault: this connection ends, others go on, and the engine
   * schedules by itself. */
  #guarded(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#broken((error as Error).message)
      if ((error as Error).name !== "MessageError")
        this.#engines.options.log(`a fault in the planner: ${(error as Error).stack}`, "error")
    }
  }

  #broken(detail: string): void {
    if (this.#over) return
    this.#channel.send({ type: "goodbye", message: detail })
    this.#channel.close()
    this.#ended(detail)
  }

  #ended(detail: string): void {
    if (this.#over) return
    this.#over = true
    this.session?.close()
    this.#engines.ended(this, detail)
  }
}
