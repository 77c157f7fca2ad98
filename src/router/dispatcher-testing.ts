/** A dispatcher under test: events in, effects out. */
import { specOf } from "../core/testing.ts"
import type { DispatchEffect, DispatchEvent } from "./dispatch.ts"
import { Dispatcher, type DispatcherOptions } from "./dispatcher.ts"

export const MS = 1000

/** Tells events, and shows what they bring about without the timers. */
export class Desk {
  readonly dispatcher: Dispatcher
  nowUs = 0

  constructor(replicas: number, options: Partial<DispatcherOptions> = {}) {
    const calm = { silenceUs: Infinity, stepUs: Infinity }
    this.dispatcher = new Dispatcher({
      router: { kind: "offer", reoffers: 2 },
      chances: (id, place) => [((id * 7 + place) % 10) / 10, ((id * 3 + place) % 10) / 10],
      ...options,
      health: { ...calm, ...options.health },
    })
    for (let replica = 0; replica < replicas; replica++) this.tell({ type: "replicaUp", replica })
  }

  tell(event: DispatchEvent): DispatchEffect[] {
    this.dispatcher.handle(event, this.nowUs)
    const effects = this.dispatcher.poll(this.nowUs)
    this.dispatcher.check()
    return effects.filter(({ type }) => type !== "wake")
  }
  /** What is due until then. */
  at(nowUs: number): DispatchEffect[] {
    const all: DispatchEffect[] = []
    while (this.nowUs < nowUs) {
      this.nowUs = Math.min(nowUs, this.nowUs + 10 * MS)
      all.push(...this.tell({ type: "woke" }))
    }
    return all
  }
  arrive(id: number, patienceUs = 10_000 * MS, choices = 1): DispatchEffect[] {
    return this.tell({ type: "arrived", id, request: specOf(id), choices, patienceUs })
  }
  offer(job: number, replica: number, takes: boolean): DispatchEffect[] {
    return this.tell({ type: "offered", job, replica, takes })
  }
  /** Arrives and goes to the first that is asked. */
  settle(id: number): { job: number; replica: number } {
    const [first] = this.arrive(id)
    if (first?.type === "submit") return first
    const [given] = first?.type === "ask" ? this.offer(first.job, first.replica, true) : []
    if (given?.type !== "submit") throw new Error("it was not given to the first")
    return given
  }
  down(replica: number): DispatchEffect[] {
    return this.tell({ type: "replicaDown", replica, cause: "died" })
  }
  up(replica: number): DispatchEffect[] {
    return this.tell({ type: "replicaUp", replica })
  }
  tokens(job: number, tokens = 1): DispatchEffect[] {
    return this.tell({ type: "progressed", job, choice: 0, tokens })
  }
}
