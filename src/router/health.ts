/** Whether a replica is to be given requests: silent or stuck ones are given up, ones that fail again and again are left
 * out for a while, and let in again after probes. And when one that died is started again. */
import type { Snapshot } from "../core/protocol.ts"

export interface HealthOptions {
  /** A replica not heard of for so long is dead. */
  silenceUs: number
  /** So is one that has work, and nothing about it changes for so long: longer than any step. */
  stepUs: number
  /** It is left out after so many failures in a row. */
  failures: number
  /** For so long the first time, twice as long each time after, up to the longest. */
  ejectUs: number
  longestEjectUs: number
  /** Let in again after so many good probes in a row, so far apart. */
  probes: number
  probeEveryUs: number
}

export const HEALTH_DEFAULTS: HealthOptions = {
  ...{ silenceUs: 3_000_000, stepUs: 60_000_000 },
  ...{ failures: 5, ejectUs: 1_000_000, longestEjectUs: 60_000_000 },
  ...{ probes: 2, probeEveryUs: 200_000 },
}

export class Health {
  readonly #options: HealthOptions
  #heardUs: number
  #changedUs: number
  #busy = false
  #sign = ""
  #failures = 0
  #ejections = 0
  /** -1: it is in. */
  #outUntilUs = -1
  #goodProbes = 0
  #calmUs = 0

  constructor(options: HealthOptions, nowUs: number) {
    this.#options = options
    this.#heardUs = nowUs
    this.#changedUs = nowUs
  }

  /** It is left out. */
  get ejected(): boolean {
    return this.#outUntilUs >= 0
  }

  heard(nowUs: number): void {
    this.#heardUs = nowUs
  }

  /** A sign that its steps end: tokens, or numbers that change. */
  moved(nowUs: number): void {
    this.#heardUs = nowUs
    this.#changedUs = nowUs
  }

  told(snapshot: Snapshot, nowUs: number): void {
    const { waiting, running, kvUsedTokens, prefillBacklogTokens, batchInFlight } = snapshot
    const sign = `${waiting} ${running} ${kvUsedTokens} ${prefillBacklogTokens}`
    this.heard(nowUs)
    if (sign !== this.#sign || !this.#busy) this.#changedUs = nowUs
    this.#sign = sign
    this.#busy = batchInFlight
  }

  /** Why it is as good as dead, or null. */
  verdict(nowUs: number): "silent" | "stuck" | null {
    if (nowUs - this.#heardUs >= this.#options.silenceUs) return "silent"
    return this.#busy && nowUs - this.#changedUs >= this.#options.stepUs ? "stuck" : null
  }

  /** When to ask for the verdict again: not before can it be another. */
  get verdictDueUs(): number {
    const { silenceUs, stepUs } = this.#options
    const silentUs = this.#heardUs + silenceUs
    return this.#busy ? Math.min(silentUs, this.#changedUs + stepUs) : silentUs
  }

  /** It did what it was asked. Where it has for as long as it was last left out, its next failures are its first. */
  succeeded(nowUs: number): void {
    this.#failures = 0
    if (!this.ejected && nowUs >= this.#calmUs) this.#ejections = 0
  }

  /** True when this was one too many. `weight`: nonsense counts as several. */
  failed(weight: number): boolean {
    this.#failures += weight
    return this.#failures >= this.#options.failures && !this.ejected
  }

  eject(nowUs: number): void {
    const { ejectUs, longestEjectUs } = this.#options
    const outUs = Math.min(longestEjectUs, ejectUs * 2 ** Math.min(40, this.#ejections++))
    this.#outUntilUs = nowUs + outUs
    this.#calmUs = this.#outUntilUs + outUs
    this.#goodProbes = 0
  }

  /** When it is to be probed; Infinity while it is in. */
  get probeAtUs(): number {
    return this.ejected ? this.#outUntilUs : Infinity
  }

  /** A probe goes out: the next one if this is never answered. */
  probing(nowUs: number): void {
    this.#outUntilUs = nowUs + this.#options.probeEveryUs
  }

  /** True when it is let in again. */
  probed(ok: boolean, nowUs: number): boolean {
    if (!this.ejected) return false
    if (!ok) {
      this.eject(nowUs)
      return false
    }
    if (++this.#goodProbes < this.#options.probes) return false
    this.#outUntilUs = -1
    this.#failures = 0
    return true
  }
}

export interface RestartOptions {
  /** Pause before the second start in a row, doubled before each further one up to the longest, µs. */
  firstUs: number
  longestUs: number
  /** Up for so long, a death is the first of its row. */
  stableUs: number
}

export const RESTART_DEFAULTS: RestartOptions = {
  ...{ firstUs: 500_000, longestUs: 60_000_000, stableUs: 30_000_000 },
}

/** When a replica that died is started again: at once after a long life, later and later where it dies over and over. */
export class Restarts {
  readonly #options: RestartOptions
  #row = 0
  #upUs = -1

  constructor(options: RestartOptions = RESTART_DEFAULTS) {
    this.#options = options
  }

  /** Deaths since it last lived for long. */
  get row(): number {
    return this.#row
  }

  /** It is up and works. */
  up(nowUs: number): void {
    this.#upUs = nowUs
  }

  /** When to start it again. `chance` in [0, 1) spreads replicas that died together: the pause is between a half and all of
   * its length. */
  died(nowUs: number, chance: number): number {
    const { firstUs, longestUs, stableUs } = this.#options
    if (this.#upUs >= 0 && nowUs - this.#upUs >= stableUs) this.#row = 0
    this.#upUs = -1
    const row = this.#row++
    if (row === 0) return nowUs
    // 2^40 pauses are the longest in any case.
    const pauseUs = Math.min(longestUs, firstUs * 2 ** Math.min(40, row - 1))
    return nowUs + Math.round(pauseUs * (0.5 + chance / 2))
  }
}

/** When it is tried again, for people. */
export function inWords(pauseMs: number): string {
  return pauseMs < 1 ? "now" : `in ${(pauseMs / 1000).toFixed(1)} s`
}
