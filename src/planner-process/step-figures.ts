/** What engines make of plans, for metrics: whose choice their steps were, how long plans took, which arguments were mistakes. */
import { Counter, Gauge, Histogram, type Registry } from "prom-client"
import type { StepOf } from "./engine-events.ts"
import type { EngineSession } from "./engine-session.ts"
import type { SloMistake } from "./slo-arguments.ts"

const SECONDS = [5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 8e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5]
/** An argument that no table knows has any name: so many have a log line of their own. */
const MOST_LOGGED = 50

export class StepFigures {
  readonly #steps = new Counter({
    name: "slos_serve_engine_steps_total",
    help: "Steps that an engine scheduled: as planned, as planned but for what had ended or found no room, or by itself.",
    labelNames: ["engine", "by"],
    registers: [],
  })
  readonly #mistakes = new Counter({
    name: "slos_serve_slo_argument_mistakes_total",
    help: "Arguments slo_... of requests that could not be meant and were left out.",
    labelNames: ["engine", "kind"],
    registers: [],
  })
  readonly #lag = new Histogram({
    name: "slos_serve_planner_lag_seconds",
    help: "From a step's message to its reading, more than the fastest one took.",
    ...{ labelNames: ["engine"], buckets: SECONDS, registers: [] },
  })
  readonly #answer = new Histogram({
    name: "slos_serve_planner_answer_seconds",
    help: "From reading a step's message to the plan that answers it.",
    ...{ labelNames: ["engine"], buckets: SECONDS, registers: [] },
  })
  readonly #logged = new Set<string>()

  scheduled(engine: string, of: StepOf): void {
    this.#steps.inc({ engine, by: of })
  }

  answered(engine: string, lagUs: number, answerUs: number): void {
    this.#lag.observe({ engine }, lagUs / 1e6)
    this.#answer.observe({ engine }, answerUs / 1e6)
  }

  /** Whether it is the first of its sort: a client that is wrong is wrong each time. */
  mistaken(engine: string, { argument, kind }: SloMistake): boolean {
    this.#mistakes.inc({ engine, kind })
    const sort = `${engine} ${argument}`
    if (this.#logged.has(sort) || this.#logged.size >= MOST_LOGGED) return false
    this.#logged.add(sort)
    return true
  }

  register(registry: Registry, sessions: () => readonly EngineSession[]): void {
    for (const metric of [this.#steps, this.#mistakes, this.#lag, this.#answer])
      registry.registerMetric(metric)
    const gauge = (name: string, help: string, read: (session: EngineSession) => number | null) =>
      new Gauge({
        ...{ name, help, labelNames: ["engine"], registers: [registry] },
        collect() {
          this.reset()
          for (const session of sessions()) {
            const value = read(session)
            if (value !== null) this.set({ engine: session.engine.name }, value)
          }
        },
      })
    gauge("slos_serve_engine_kv_free_tokens", "KV that an engine says it has free.", ({ kvFree }) =>
      kvFree === null ? null : kvFree.told,
    )
    gauge(
      "slos_serve_engine_kv_free_believed_tokens",
      "KV that the planner believed an engine to have free when it said so.",
      ({ kvFree }) => (kvFree === null ? null : kvFree.believed),
    )
  }
}
