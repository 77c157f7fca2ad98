/** How fast the machine is just now against its usual self: slow steps come in a row where something else takes a core,
 * the memory or the clock rate for a while (docs/design.md, Margin and calibration). What the last step says of the next is
 * learnt: nothing where steps scatter independently, as they do in a simulation. */

/** Steps after which an old one has lost most of its weight. */
const MEMORY_STEPS = 200
/** How long what is in the machine's way lasts: after an idle second the last step says a third of what it said. */
const LASTS_US = 1_000_000
/** A step says no more than that the machine is so many times slower or faster (natural logarithm of two). */
const MOST = Math.LN2
/** Independent steps seem to follow each other by chance, by two standard errors as a rule at most. */
const CHANCE = 2
const MOST_FOLLOWED = 0.8

export class MachineSpeed {
  /** Of the last step: ln of its time over what is usual. */
  #last = 0
  #endedUs = 0
  /** Sums over pairs of steps, decayed: (before · after), (before²), and how many. */
  #both = 0
  #before = 0
  #pairs = 0

  /** A step that ended at `endedUs` took `ratio` times what is usual; it took `tookUs`. */
  observe(ratio: number, tookUs: number, endedUs: number): void {
    const now = Math.max(-MOST, Math.min(MOST, Math.log(ratio)))
    const before = this.#lastAt(endedUs - tookUs)
    const keep = 1 - 1 / MEMORY_STEPS
    this.#both = keep * this.#both + before * now
    this.#before = keep * this.#before + before * before
    this.#pairs = keep * this.#pairs + 1
    this.#last = now
    this.#endedUs = endedUs
  }

  /** Times the usual, for a step that begins at `nowUs`. */
  factor(nowUs: number): number {
    const follows = this.#follows
    return follows > 0 ? Math.exp(follows * this.#lastAt(nowUs)) : 1
  }

  /** How much of a step's difference the next one has, 0 … 1: the slope of a regression, less what chance would give. */
  get #follows(): number {
    if (this.#before <= 0) return 0
    const slope = this.#both / this.#before - CHANCE / Math.sqrt(this.#pairs)
    return Math.max(0, Math.min(MOST_FOLLOWED, slope))
  }

  #lastAt(nowUs: number): number {
    return this.#last * Math.exp(-Math.max(0, nowUs - this.#endedUs) / LASTS_US)
  }
}
