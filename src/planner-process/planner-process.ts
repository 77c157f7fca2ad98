/** The planner of one or several engines: takes their connections, gives each a core of its own, and shows them together. */
import type { Socket } from "node:net"
import { ElbowRoom } from "./elbow-room.ts"
import { EngineConnection, type Engines } from "./engine-connection.ts"
import type { EngineSession } from "./engine-session.ts"
import { PlannerFront } from "./planner-front.ts"
import type { PlannerOptions } from "./planner-options.ts"
import { StepFigures } from "./step-figures.ts"

export class PlannerProcess implements Engines {
  readonly options: PlannerOptions
  readonly front: PlannerFront
  readonly figures = new StepFigures()
  readonly elbowRoom = new ElbowRoom()
  readonly #connections = new Set<EngineConnection>()
  #onFirst: (() => void) | null = null

  constructor(options: PlannerOptions) {
    this.options = options
    this.front = new PlannerFront(options.tenants, () => this.sessions)
  }

  /** Of the engines that are connected now. */
  get sessions(): EngineSession[] {
    return [...this.#connections].flatMap(({ session }) => session ?? [])
  }

  /** `then` is called once, when the first engine is connected. */
  whenFirst(then: () => void): void {
    this.#onFirst = then
  }

  connect(socket: Socket): void {
    const connection = new EngineConnection(socket, this)
    this.#connections.add(connection)
  }

  /** It is connected already, by another connection. */
  has(name: string): boolean {
    return this.sessions.some(({ engine }) => engine.name === name)
  }

  opened(session: EngineSession): void {
    this.front.joined(session)
    const { name, model, device, vllmVersion, pluginVersion, depth } = session.engine
    this.options.log(
      `engine ${name} is connected: ${model} on ${device}, vLLM ${vllmVersion}, plug-in ${pluginVersion}, depth ${depth}`,
      "info",
    )
    this.#onFirst?.()
    this.#onFirst = null
  }

  ended(connection: EngineConnection, detail: string): void {
    this.#connections.delete(connection)
    const { session } = connection
    if (session === null) {
      this.options.log(`a connection that was no engine's has ended: ${detail}`, "info")
      return
    }
    this.front.left(session)
    this.elbowRoom.gone(session.engine.name)
    this.options.log(`engine ${session.engine.name} is gone: ${detail}`, "warn")
  }

  /** All engines are told that they plan for themselves from now on. */
  async goodbye(why: string): Promise<void> {
    await Promise.all([...this.#connections].map((connection) => connection.goodbye(why)))
  }
}
