/** Prometheus metrics of an endpoint picker. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client"
import type { Endpoint } from "./chooser.ts"
import type { Verdict } from "./flow-control.ts"

const HELD_S = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const PREFIX = "slos_serve_picker"

/** Endpoints with counts of their own; a gateway may name ever new ones. */
const MOST_ENDPOINTS = 1000

export interface PickerGauges {
  held(): number
  heldBytes(): number
  endpoints(): number
  ejected(): number
  streams(): number
}

export class PickerMetrics {
  readonly registry = new Registry()
  readonly #picked: Counter<"endpoint">
  readonly #dropped: Counter<"reason">
  readonly #refused: Counter<"status">
  readonly #answered: Counter<"class">
  readonly #gone: Counter
  readonly #heldSeconds: Histogram
  readonly #endpoints = new Set<Endpoint>()

  /** `process`: with those of the process, which cost it an observer of its garbage collections. */
  constructor(gauges: PickerGauges, { process }: { process: boolean }) {
    const registers = [this.registry]
    if (process) collectDefaultMetrics({ register: this.registry })
    const counter = <Label extends string>(name: string, help: string, ...labelNames: Label[]) =>
      new Counter({ name: `${PREFIX}_${name}`, help, labelNames, registers })
    this.#picked = counter("picked_total", "Requests sent to each endpoint", "endpoint")
    this.#dropped = counter("dropped_total", "Requests refused for lack of room or endpoints", "reason")
    this.#refused = counter(
      "refused_total",
      "Requests that could not be read, by the status they got",
      "status",
    )
    this.#answered = counter("answered_total", "Responses that endpoints began, by class of status", "class")
    this.#gone = counter("gone_total", "Requests whose client left before an endpoint was picked")
    this.#heldSeconds = new Histogram({
      name: `${PREFIX}_held_seconds`,
      help: "Time from a request's headers until it was sent or refused",
      buckets: HELD_S,
      registers,
    })
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name: `${PREFIX}_${name}`,
        help,
        registers,
        collect() {
          this.set(read())
        },
      })
    gauge("held", "Requests held now", gauges.held)
    gauge("held_bytes", "Bodies of the requests held now", gauges.heldBytes)
    gauge("endpoints", "Endpoints that may be picked", gauges.endpoints)
    gauge("ejected_endpoints", "Endpoints left out for a while because they failed", gauges.ejected)
    gauge("streams", "Requests and responses under way", gauges.streams)
  }

  settled(verdict: Verdict): void {
    this.#heldSeconds.observe(verdict.heldUs / 1e6)
    if (verdict.kind === "drop") return void this.#dropped.inc({ reason: verdict.reason })
    const endpoint = verdict.endpoints[0]!
    const known = this.#endpoints.has(endpoint) || this.#endpoints.size < MOST_ENDPOINTS
    if (known) this.#endpoints.add(endpoint)
    this.#picked.inc({ endpoint: known ? endpoint : "(others)" })
  }

  gone(): void {
    this.#gone.inc()
  }

  refused(status: number): void {
    this.#refused.inc({ status: String(status) })
  }

  answered(status: string): void {
    this.#answered.inc({ class: /^[1-5]/.test(status) ? `${status[0]}xx` : "none" })
  }
}
