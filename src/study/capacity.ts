/** Capacity by bisection: the highest rate at which at least 90% of the requests keep every SLO. Rates lie on one
 * geometric grid, so that searches of different seeds and knobs share their runs and compare like with like. */

/** Ratio of neighbouring rates: what a capacity is exact to. */
export const GRID = 1.02
export const TARGET = 0.9
/** Rates are sought in this range, requests/s. */
const LEAST_RATE = 0.002
const MOST_RATE = 5000
/** A single run stops once so many times the allowed share has missed: it has told enough, even where other seeds make
 * up for it. */
const STOP_FACTOR = 2
/** The same where only pass or fail of one seed matters. */
export const DECIDED = 1

export const rateOf = (k: number): number => Number((GRID ** k).toPrecision(6))
export const gridOf = (ratePerSec: number): number => Math.round(Math.log(ratePerSec) / Math.log(GRID))

/** What one run says: `kept` of `total`; when stopped, `kept` is the most it can have been. */
export interface Verdict {
  kept: number
  total: number
  stopped: boolean
}

/** Runs one seed at one rate; may stop as soon as more than `stopAtMissed` of the requests have missed. */
export type Evaluate = (ratePerSec: number, seed: number, stopAtMissed: number) => Verdict

export interface Point {
  ratePerSec: number
  attainment: number
}

export interface Capacity {
  /** 0: not even the least rate is held. */
  ratePerSec: number
  /** Pooled over the seeds, at that rate. */
  attainment: number
  /** Of each seed alone at the pooled capacity, in the order of the seeds. */
  seedAttainment: number[]
  /** Each seed's own capacity; empty where that was not sought. */
  perSeed: number[]
  /** Pooled attainment at every rate that was run in full, by rate. */
  curve: Point[]
  runs: number
}

/** Remembers every run of one configuration. */
export class Search {
  #evaluate: Evaluate
  #target: number
  #stopFactor: number
  #known = new Map<string, Verdict>()
  runs = 0

  constructor(evaluate: Evaluate, target = TARGET, stopFactor = STOP_FACTOR) {
    this.#evaluate = evaluate
    this.#target = target
    this.#stopFactor = stopFactor
  }

  /** At least the target share is kept at grid rate `k`, over these seeds together. */
  passes(k: number, seeds: readonly number[]): boolean {
    let missed = 0
    let total = 0
    for (const [i, seed] of seeds.entries()) {
      const verdict = this.#run(k, seed)
      missed += verdict.total - verdict.kept
      total += verdict.total
      // Plans of one rate have nearly the same number of requests: the others cannot make up for this.
      if (missed > (1 - this.#target) * 1.02 * (total / (i + 1)) * seeds.length) return false
    }
    return missed <= (1 - this.#target) * total
  }

  /** The highest grid rate that passes, sought outwards from `guess`; null when even the least fails. */
  highest(guess: number, seeds: readonly number[], firstStride = 2): number | null {
    const [least, most] = [gridOf(LEAST_RATE), gridOf(MOST_RATE)]
    let low = Math.min(most, Math.max(least, guess))
    let high: number
    let stride = firstStride
    if (this.passes(low, seeds)) {
      for (high = low + stride; high <= most && this.passes(high, seeds); high = low + stride) {
        low = high
        stride *= 2
      }
    } else {
      high = low
      for (low = high - stride; !this.passes(Math.max(least, low), seeds); low = high - stride) {
        if (low <= least) return null
        high = low
        stride *= 2
      }
      low = Math.max(least, low)
    }
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if (this.passes(middle, seeds)) low = middle
      else high = middle
    }
    return low
  }

  /** Capacity over `seeds` together and, for the `spread`, of each alone. */
  capacity(guess: number, seeds: readonly number[], spread = true): Capacity {
    const pooled = this.highest(guess, seeds)
    const perSeed = (spread ? seeds : []).map((seed) => {
      const own = pooled === null ? null : this.highest(pooled, [seed], 1)
      return own === null ? 0 : rateOf(own)
    })
    const curve = this.#curve(seeds)
    const ratePerSec = pooled === null ? 0 : rateOf(pooled)
    const attainment = curve.find((point) => point.ratePerSec === ratePerSec)?.attainment ?? 0
    const seedAttainment = seeds.map((seed) => {
      const verdict = this.#known.get(`${pooled} ${seed}`)
      return verdict === undefined ? 0 : verdict.kept / Math.max(1, verdict.total)
    })
    return { ratePerSec, attainment, seedAttainment, perSeed, curve, runs: this.runs }
  }

  #run(k: number, seed: number): Verdict {
    const key = `${k} ${seed}`
    const known = this.#known.get(key)
    if (known !== undefined) return known
    this.runs++
    const verdict = this.#evaluate(rateOf(k), seed, this.#stopFactor * (1 - this.#target))
    this.#known.set(key, verdict)
    return verdict
  }

  #curve(seeds: readonly number[]): Point[] {
    const rates = new Set([...this.#known.keys()].map((key) => Number(key.split(" ")[0])))
    return [...rates]
      .sort((a, b) => a - b)
      .flatMap((k) => {
        const verdicts = seeds.map((seed) => this.#known.get(`${k} ${seed}`))
        if (verdicts.some((verdict) => verdict === undefined || verdict.stopped)) return []
        const kept = verdicts.reduce((sum, verdict) => sum + verdict!.kept, 0)
        const total = verdicts.reduce((sum, verdict) => sum + verdict!.total, 0)
        return [{ ratePerSec: rateOf(k), attainment: kept / Math.max(1, total) }]
      })
  }
}
