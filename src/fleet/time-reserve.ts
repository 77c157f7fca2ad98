/** How much time of an engine that computes what it was given to the end is to be kept free for promises to come. */
import { keepsAlone } from "./keeps-alone.ts"
import type { Twin, TwinSpec } from "./twin.ts"

/** Nothing is kept free when there was no promise for so long, µs. */
const LATELY_US = 60_000_000

export class TimeReserve {
  readonly #twin: Twin
  /** Of each app, the latest that was sent on a promise, or with one in sight. */
  readonly #latest = new Map<number, { spec: TwinSpec; atUs: number }>()

  constructor(twin: Twin) {
    this.#twin = twin
  }

  /** The request goes out to the engine, or did so then. */
  sent(spec: TwinSpec, atUs: number): void {
    const before = this.#latest.get(spec.app)?.atUs ?? -Infinity
    if (spec.tier === "slo" && atUs >= before) this.#latest.set(spec.app, { spec, atUs })
  }

  /** With this request there, could one like the latest promised one still be promised? Without it, an engine between two
   * promises is filled with late requests, and all that come next are late as well. `dueUs`: of its own first token; what may
   * still be in time is as good as what may come. */
  leaves(spec: TwinSpec, nowUs: number, dueUs: number): boolean {
    const { slo } = spec
    const hasObjective = slo.ttftSlowdown > 0 || slo.ttftUs < Infinity
    if (hasObjective && nowUs <= dueUs) return true
    const like = this.#toCome(nowUs)
    return (
      like === null ||
      this.#twin.offer({ ...like, arrivalUs: nowUs }, nowUs, { before: [spec], after: [] }).takes
    )
  }

  /** What may come next: like the latest, but for what not even an idle engine keeps. */
  #toCome(nowUs: number): TwinSpec | null {
    const lately = [...this.#latest.values()].filter(({ atUs }) => nowUs - atUs <= LATELY_US)
    lately.sort((a, b) => b.atUs - a.atUs)
    return lately.find(({ spec }) => keepsAlone(spec, this.#twin))?.spec ?? null
  }
}
