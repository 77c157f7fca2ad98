/** How fast the machine is just now against its usual self: slow steps come in a row where something else takes a core,
 * the memory or the clock rate for a while (docs/design.md, Margin and calibration). What the last step says of the next is
 * learnt: nothing where steps scatter independently, as they do in a simulation. */

/** Steps after which an old one has lost most of its weight. */
const MEMORY_STEPS = 200
/** Weight of a new step in what is usual, once there are as many. Fast at first: that the profile is off is no spell. */
const WEIGHT = 0.05
/** How long what is in the machine's way lasts: after an idle second the last step says a third of what it said. */
const LASTS_US = 1_000_000
/** A step says no more than that the machine is so many times slower or faster (natural logarithm of two). */
const MOST = Math.LN2
/** Independent steps seem to follow each other by chance: by two standard errors as a rule at most, each 1/√2 of a pair's. */
const CHANCE = 2 * Math.SQRT1_2
const MOST_FOLLOWED = 0.8

/** What a kind of step usually takes, ln of actual over predicted. */
interface Usual {
  mean: number
  steps: number
}

export class MachineSpeed {
  #usual = new Map<string, Usual>()
  /** Of the last step: ln of its time over what is usual. */
  #last = 0
  #endedUs = 0
  /** Decayed over pairs of steps: how alike their differences are, −1 … 1 a pair, and how many pairs. */
  #alike = 0
  #pairs = 0

  /** A step of `kind` that ended at `endedUs` took `tookUs`, `ratio` times what the profile says. */
  observe(kind: string, ratio: number, tookUs: number, endedUs: number): void {
    const now = this.#difference(kind, Math.log(ratio))
    const before = this.#lastAt(endedUs - tookUs)
    const size = before * before + now * now
    if (size > 0) {
      // Every pair counts the same: few stalls must not decide. Of normal steps with correlation r the mean t of this
      // has r = 2t/(1 + t²).
      const keep = 1 - 1 / MEMORY_STEPS
      this.#alike = keep * this.#alike + (2 * before * now) / size
      this.#pairs = keep * this.#pairs + 1
    }
    this.#last = now
    this.#endedUs = endedUs
  }

  /** Times the usual, for a step that begins at `nowUs`. */
  factor(nowUs: number): number {
    const follows = this.#follows
    return follows > 0 ? Math.exp(follows * this.#lastAt(nowUs)) : 1
  }

  /** How much of a step's difference the next one has, 0 … 1: their correlation, less what chance would give. */
  get #follows(): number {
    if (this.#pairs === 0) return 0
    const alike = Math.max(0, this.#alike / this.#pairs - CHANCE / Math.sqrt(this.#pairs))
    return Math.min(MOST_FOLLOWED, (2 * alike) / (1 + alike * alike))
  }

  /** From what is usual for its kind, which it becomes part of. */
  #difference(kind: string, log: number): number {
    const usual = this.#usual.get(kind) ?? { mean: log, steps: 0 }
    this.#usual.set(kind, usual)
    const difference = Math.max(-MOST, Math.min(MOST, log - usual.mean))
    usual.mean += Math.max(WEIGHT, 1 / ++usual.steps) * difference
    return difference
  }

  #lastAt(nowUs: number): number {
    return this.#last * Math.exp(-Math.max(0, nowUs - this.#endedUs) / LASTS_US)
  }
}
