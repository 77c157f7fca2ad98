/** What is given to an engine, and when: what would only wait there waits here, by deadline, where it can still be
 * overtaken, or go elsewhere. */
import type { Held, Twin, TwinOffer } from "../twin.ts"
import { byDeadline, type Course } from "./course.ts"

/** An engine is sent what it would begin so soon, so that it never runs dry. */
const LEAD_US = 30_000
/** A request without a promise goes out after so long, whatever it does to promises. */
const PATIENCE_US = 30_000_000
/** Looked at again after so long, at the latest and at the earliest. */
const MOST_WAIT_US = 100_000
const LEAST_WAIT_US = 2_000

export interface HoldingSink {
  send(course: Course): void
  /** Its first token would come too late. */
  turnDown(course: Course): void
}

export class Holding {
  readonly #twin: Twin
  readonly #nowUs: () => number
  readonly #sink: HoldingSink
  #held: Course[] = []
  #timer: NodeJS.Timeout | null = null
  /** Nothing goes out before, µs. */
  #pausedUntilUs = -Infinity
  #closed = true

  constructor(twin: Twin, nowUs: () => number, sink: HoldingSink) {
    this.#twin = twin
    this.#nowUs = nowUs
    this.#sink = sink
  }

  get size(): number {
    return this.#held.length
  }
  get paused(): boolean {
    return this.#closed || this.#nowUs() < this.#pausedUntilUs
  }

  add(course: Course): void {
    this.#held.push(course)
    this.#held.sort(byDeadline)
    this.look()
  }

  /** False when it is not held (any more). */
  remove(course: Course): boolean {
    const at = this.#held.indexOf(course)
    if (at < 0) return false
    this.#held.splice(at, 1)
    return true
  }

  /** All that is held; it is held no more. */
  takeAll(): Course[] {
    return this.#held.splice(0)
  }

  /** What goes out before a request with this deadline (µs, absolute), and after. */
  around(deadlineUs: number): Held {
    const before: Course[] = []
    const after: Course[] = []
    for (const course of this.#held) {
      if (course.spec.tier !== "slo") continue
      const list = course.judge.deadlineUs <= deadlineUs ? before : after
      list.push(course)
    }
    return { before: before.map(({ spec }) => spec), after: after.map(({ spec }) => spec) }
  }

  open(): void {
    this.#closed = false
    this.look()
  }
  shut(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }
  /** The engine said that it takes nothing for so long. */
  pause(us: number): void {
    this.#pausedUntilUs = Math.max(this.#pausedUntilUs, this.#nowUs() + us)
    this.look()
  }

  /** Send what is to be sent now. */
  look(): void {
    while (!this.#closed && this.#held.length > 0) {
      const course = this.#held[0]!
      const nowUs = this.#nowUs()
      if (nowUs < this.#pausedUntilUs) {
        this.#wakeIn(this.#pausedUntilUs - nowUs)
        return
      }
      if (!this.#guesses) {
        const offer = this.#twin.offer(course.spec, nowUs)
        if (this.#isTooLate(course, offer)) continue
        // Whatever is forecast: while the engine does nothing nothing comes from it that would change the forecast.
        const waitUs = this.#twin.idle ? 0 : this.#waitUs(course, offer, nowUs)
        if (waitUs > 0) {
          this.#wakeIn(waitUs)
          return
        }
      }
      this.#held.shift()
      this.#sink.send(course)
    }
  }

  /** How long its steps take is not known yet, and it has room: what is held now would wait for a guess. */
  get #guesses(): boolean {
    const { fit, inFlight, rules } = this.#twin
    return !fit.confident && inFlight < rules.maxSequences
  }

  /** It gives its promise up, and its place: others may still be in time. */
  #isTooLate(course: Course, { firstTokenUs }: TwinOffer): boolean {
    const { spec, judge } = course
    if (spec.tier !== "slo" || firstTokenUs <= judge.deadlineUs) return false
    course.spec = { ...spec, tier: "bestEffort" }
    this.#held.sort(byDeadline)
    this.#sink.turnDown(course)
    return true
  }

  /** How long the first one has to wait still, µs; 0 when it is to go. */
  #waitUs({ spec, sinceUs }: Course, { queuesUs, keepsOthers }: TwinOffer, nowUs: number): number {
    const patient = nowUs - sinceUs < PATIENCE_US
    if (spec.tier === "bestEffort" && !keepsOthers && patient) return MOST_WAIT_US
    const waitUs = queuesUs - LEAD_US
    return waitUs <= 0 ? 0 : Math.min(MOST_WAIT_US, Math.max(LEAST_WAIT_US, waitUs))
  }

  /** In the place of an earlier call: `look` finds again what is to be waited for, also where a timer fires before its time. */
  #wakeIn(us: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.look(), Math.ceil(us / 1000))
    this.#timer.unref()
  }
}
