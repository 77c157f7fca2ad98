/** What is given to an engine, and when: what would only wait there waits here, by deadline, where it can still be
 * overtaken, or go elsewhere. */
import type { RequestId } from "../../core/protocol.ts"
import { TimeReserve } from "../time-reserve.ts"
import type { Held, Twin, TwinOffer, TwinSpec } from "../twin.ts"
import { mayWaitUs } from "../twin-words.ts"

/** An engine is sent what it would begin so soon, so that it never runs dry. */
const LEAD_US = 30_000
/** After so many times what the first one was to wait, the forecast is wrong. */
const OVERDUE = 3
/** A request without a promise goes out after so long, whatever it does to promises; and then no other like it for a while: the
 * rest of a long queue at once would leave room for no promise. Their prompts have so much of a busy engine's time at most: one
 * every two seconds is half of what a slow engine can do. */
const PATIENCE_US = 30_000_000
const FORCED_EVERY_US = 2_000_000
const FORCED_SHARE = 0.05
/** In place of a wait. */
const FORCED = -1
/** Looked at again after so long, at the latest and at the earliest. */
const MOST_WAIT_US = 100_000
const LEAST_WAIT_US = 2_000

/** What may be held. */
export interface Holdable {
  readonly id: RequestId
  /** As its twin knows it; best effort once it was turned down. */
  spec: TwinSpec
  /** Of its first token, absolute µs. */
  readonly judge: { readonly deadlineUs: number }
  /** When it came, µs. */
  readonly sinceUs: number
}

export interface HoldingSink<Course extends Holdable> {
  /** `forced`: whatever it does to promises. */
  send(course: Course, forced: boolean): void
  /** Its first token would come too late. */
  turnDown(course: Course): void
}

/** Calls `fn` once, so many µs from now; the answer cancels it. */
export type Later = (us: number, fn: () => void) => () => void

export class Holding<Course extends Holdable> {
  readonly #twin: Twin
  readonly #nowUs: () => number
  readonly #sink: HoldingSink<Course>
  readonly #later: Later
  #held: Course[] = []
  #cancelWake: (() => void) | null = null
  /** Nothing goes out before, µs. */
  #pausedUntilUs = -Infinity
  #closed = true
  /** Until then no other one goes out whatever it does to promises. */
  #unforcedUntilUs = -Infinity
  /** What the first one waits for should have come long before. */
  #overdueUs = Infinity
  readonly #reserve: TimeReserve

  /** `later`: a simulation brings its own. */
  constructor(twin: Twin, nowUs: () => number, sink: HoldingSink<Course>, later: Later = laterInRealTime) {
    this.#twin = twin
    this.#reserve = new TimeReserve(twin)
    this.#nowUs = nowUs
    this.#sink = sink
    this.#later = later
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
    this.#cancelWake?.()
    this.#cancelWake = null
  }
  /** The engine said that it takes nothing for so long. */
  pause(us: number): void {
    this.#pausedUntilUs = Math.max(this.#pausedUntilUs, this.#nowUs() + us)
    this.look()
  }

  /** Another process of this gateway sent one: what the engine has for promises and for late requests is of all of them. */
  sentElsewhere(spec: TwinSpec, forced: boolean, atUs = this.#nowUs()): void {
    this.#reserve.sent(spec, atUs)
    if (forced) this.#forced(spec, atUs)
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
      let forced = false
      if (!this.#guesses) {
        const offer = this.#twin.offer(course.spec, nowUs)
        if (this.#isTooLate(course, offer)) continue
        // Whatever is forecast: while the engine does nothing nothing comes from it that would change the forecast.
        const waitUs = this.#twin.idle ? 0 : this.#waitUs(course, offer, nowUs)
        if (waitUs > 0) {
          this.#wakeIn(waitUs)
          return
        }
        forced = waitUs < 0
      }
      this.#held.shift()
      if (nowUs < this.#overdueUs || this.#held.length === 0) this.#overdueUs = Infinity
      this.#reserve.sent(course.spec, nowUs)
      this.#sink.send(course, forced)
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

  /** How long the first one has to wait still, µs; 0 when it is to go, FORCED whatever it does to promises. Where steps end sooner than is
   * believed each would begin just before what is held for it goes out: then all that fits into the next one goes. */
  #waitUs(course: Course, offer: TwinOffer, nowUs: number): number {
    if (course.spec.tier === "bestEffort" && this.#harms(course, offer, nowUs))
      return this.#forces(course, nowUs) ? FORCED : MOST_WAIT_US
    const waitUs = mayWaitUs(offer) - LEAD_US
    if (waitUs <= 0) return 0
    if (nowUs >= this.#overdueUs && offer.startsNext) return 0
    if (nowUs >= this.#overdueUs || this.#overdueUs === Infinity)
      this.#overdueUs = nowUs + OVERDUE * offer.queuesUs
    return Math.min(MOST_WAIT_US, Math.max(LEAST_WAIT_US, waitUs))
  }

  /** To promises that there are, or to those to come. */
  #harms({ spec, judge }: Course, { keepsOthers, leavesRoom }: TwinOffer, nowUs: number): boolean {
    return !keepsOthers || !leavesRoom || !this.#reserve.leaves(spec, nowUs, judge.deadlineUs)
  }

  /** It has waited so long that it goes whatever it does to promises; unless another did so a moment ago. */
  #forces({ spec, sinceUs }: Course, nowUs: number): boolean {
    if (nowUs - sinceUs < PATIENCE_US || nowUs < this.#unforcedUntilUs) return false
    this.#forced(spec, nowUs)
    return true
  }

  /** No other one does for a while; two that did at one moment have a while each. */
  #forced({ promptTokens }: TwinSpec, nowUs: number): void {
    const takesUs = this.#twin.zeroLoadPrefillUs(promptTokens)
    const whileUs = Math.max(FORCED_EVERY_US, takesUs / FORCED_SHARE)
    this.#unforcedUntilUs = Math.max(this.#unforcedUntilUs, nowUs) + whileUs
  }

  /** In the place of an earlier call: `look` finds again what is to be waited for, also where a timer fires before its time. */
  #wakeIn(us: number): void {
    this.#cancelWake?.()
    this.#cancelWake = this.#later(us, () => this.look())
  }
}

/** Promises first, by deadline; then the rest, as they came. */
function byDeadline(a: Holdable, b: Holdable): number {
  return due(a) - due(b) || a.id - b.id
}

function due({ spec, judge }: Holdable): number {
  return spec.tier === "slo" ? judge.deadlineUs : Infinity
}

function laterInRealTime(us: number, fn: () => void): () => void {
  const timer = setTimeout(fn, Math.ceil(us / 1000))
  timer.unref()
  return () => clearTimeout(timer)
}
