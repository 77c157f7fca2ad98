/** A replica of a fleet as its dispatcher knows it: what was said of it last, what it was given, and whether it may have more. */
import type { Snapshot } from "../core/protocol.ts"
import type { JobId } from "./dispatch.ts"
import type { Entry } from "./entry.ts"
import { Health, type HealthOptions } from "./health.ts"
import type { ReplicaView } from "./target.ts"

/** Where its pace is not known, half of what waited is thought to be gone after so long. */
const HALF_LIFE_US = 1_000_000

/** Until it has said something. */
const UNKNOWN: Snapshot = {
  ...{ nowUs: 0, waiting: 0, running: 0, bestEffort: 0, prefillBacklogTokens: 0, prefillUsPerToken: 0 },
  ...{ kvUsedTokens: 0, kvCachedTokens: 0, kvCapacityTokens: 1, kvEvictedTokens: 0 },
  ...{ batchInFlight: false, calibration: [1, 1, 1], speculation: [] },
}

export class Member implements ReplicaView {
  readonly index: number
  state: "up" | "draining" | "down" = "down"
  health: Health
  /** While it is down: when it takes requests again, at the latest; Infinity: not at all. null: that is not known. */
  expectedUs: number | null = null
  /** What it has, and what it was asked. */
  readonly entries = new Set<Entry>()
  readonly asked = new Set<JobId>()
  /** Suspects that have it to themselves. */
  readonly trial = new Set<Entry>()
  /** Suspects among what it has. */
  suspects = 0
  /** When what it has last died, without it being down. */
  lastDeathUs = -Infinity
  /** Not for the request that is being placed. */
  barred = false
  /** It told that a job has started: those of which it did not had not. */
  tellsStarts = false
  computes = true
  /** When it is looked at next. */
  armedUs = Infinity
  #told = UNKNOWN
  /** The same, aged. */
  #snapshot = UNKNOWN

  constructor(index: number, health: HealthOptions, nowUs: number) {
    this.index = index
    this.health = new Health(health, nowUs)
  }

  /** It may be given requests. */
  get usable(): boolean {
    return this.state === "up" && this.computes && !this.health.ejected
  }

  /** It has, or may have by then, what a request can wait for. */
  mayServeBy(untilUs: number, nowUs: number): boolean {
    if (this.state !== "down" || this.expectedUs === null) return true
    return this.expectedUs >= nowUs && this.expectedUs <= untilUs
  }

  // As the router sees it.

  get alive(): boolean {
    return this.usable && !this.barred && this.trial.size === 0
  }
  snapshot(): Snapshot {
    return this.#snapshot
  }

  /** Of two that cross on the way the older is not news. */
  told(snapshot: Snapshot, takenAtUs: number): void {
    if (takenAtUs < this.#told.nowUs) return
    this.#told = snapshot.nowUs === takenAtUs ? snapshot : { ...snapshot, nowUs: takenAtUs }
    this.#snapshot = this.#told
  }

  /** Nothing new was said for a while: by now it has done some of what it owed then, as its pace says. */
  age(nowUs: number): void {
    const { nowUs: takenAtUs, prefillBacklogTokens, prefillUsPerToken, waiting } = this.#told
    const ageUs = nowUs - takenAtUs
    const owedUs = prefillBacklogTokens * prefillUsPerToken
    const left = owedUs > 0 ? Math.max(0, 1 - ageUs / owedUs) : 2 ** (-ageUs / HALF_LIFE_US)
    this.#snapshot = {
      ...this.#told,
      waiting: Math.round(waiting * left),
      prefillBacklogTokens: Math.round(prefillBacklogTokens * left),
    }
  }

  /** It starts afresh. */
  reset(health: HealthOptions, nowUs: number): void {
    this.health = new Health(health, nowUs)
    this.tellsStarts = false
    this.computes = true
    this.expectedUs = null
    this.#told = this.#snapshot = { ...UNKNOWN, nowUs }
    this.lastDeathUs = -Infinity
  }
}
