/** How much time of an engine that computes what it was given to the end is to be kept free for promises to come. */
import type { Twin, TwinSpec } from "./twin.ts"

/** Nothing is kept free when there was no promise for so long, µs. */
const LATELY_US = 60_000_000

export class TimeReserve {
  readonly #twin: Pick<Twin, "offer">
  #latest: { spec: TwinSpec; atUs: number } | null = null

  constructor(twin: Pick<Twin, "offer">) {
    this.#twin = twin
  }

  /** The request goes out to the engine, or did so then. */
  sent(spec: TwinSpec, atUs: number): void {
    if (spec.tier === "slo" && atUs >= (this.#latest?.atUs ?? -Infinity)) this.#latest = { spec, atUs }
  }

  /** With this request there, could one like the latest promised one still be promised? Without it, an engine between two
   * promises is filled with late requests, and all that come next are late as well. `dueUs`: of its own first token; what may
   * still be in time is as good as what may come. */
  leaves(spec: TwinSpec, nowUs: number, dueUs: number): boolean {
    if (nowUs <= dueUs && dueUs < Infinity) return true
    const latest = this.#latest
    if (latest === null || nowUs - latest.atUs > LATELY_US) return true
    return this.#twin.offer({ ...latest.spec, arrivalUs: nowUs }, nowUs, { before: [spec], after: [] }).takes
  }
}
