/** How many replicas keep the target share of the SLOs, if the next minutes are like the last: the least number that does, and
 * what the numbers around it would keep. */
import { attainmentOf, type FleetSetup, type Forecast, play } from "./play.ts"
import { type Recording, type ScoreOptions, scoreOf } from "./score.ts"

export interface AdviceOptions extends Omit<ScoreOptions, "replicas"> {
  /** Share of the requests that is to keep every SLO. */
  target: number
  /** No more are advised. */
  mostReplicas: number
  seed: number
  /** Replicas that serve now. */
  replicas: number
  /** Play to the end, for latencies of what misses. */
  whole?: boolean
}

export interface Advice {
  /** By number of replicas; of a fleet that is played in part, of multiples of `each`. */
  forecasts: Forecast[]
  /** Replicas that were there. */
  replicas: number
  /** The least number that is enough; where none is, the most that may be. */
  best: number
  /** Whether `best` keeps the target. */
  reached: boolean
  /** Requests with SLOs that it rests on, and whether they are enough to say anything. */
  requests: number
  enough: boolean
  /** Share of those recorded and ended that kept their SLOs; null of none. */
  measured: number | null
  growth: number
  each: number
  spanS: number
}

/** A fleet that idles so much with one replica may shrink to it, however few its requests. */
const IDLE = 0.9

/** So few requests cannot show that the target is kept, even if all of them keep their SLOs. */
export const leastRequests = (target: number): number => Math.max(10, Math.ceil(target / (1 - target)))

/** What the share is at least, as far as so many requests can tell (Wilson's bound, one standard error). */
export function surely({ kept, total }: Pick<Forecast, "kept" | "total">): number {
  if (total === 0) return 0
  const p = kept / total
  const spread = Math.sqrt((p * (1 - p)) / total + 1 / (4 * total ** 2))
  return (p + 1 / (2 * total) - spread) / (1 + 1 / total)
}

/** Yields after every play, so that the caller can rest in between. */
export function* advise(
  setup: FleetSetup,
  recording: Recording,
  options: AdviceOptions,
): Generator<Forecast, Advice, void> {
  const score = scoreOf(recording, options)
  const { each } = score
  const now = Math.max(1, Math.round(options.replicas / each))
  const most = Math.max(now, Math.floor(options.mostReplicas / each))
  const search = new Search(now, most, options.target, (count) =>
    play(setup, score, count, { seed: options.seed, untilDecided: options.whole !== true }),
  )
  const found = yield* search.run()
  const { total } = search.at(now)
  const enough = total >= leastRequests(options.target)
  const few = search.at(1)
  const idle = score.arrivals.length === 0 || (few.kept === few.total && few.idleShare >= IDLE)
  const best = enough ? found : idle ? 1 : now
  return {
    forecasts: search.forecasts.map((forecast) => ({ ...forecast, replicas: forecast.replicas * each })),
    ...{ replicas: options.replicas, best: best === now ? options.replicas : best * each },
    ...{ reached: enough && attainmentOf(search.at(best)) >= options.target, requests: total, enough },
    ...{ measured: measuredOf(recording, score.spanS), growth: score.growth, each, spanS: score.spanS },
  }
}

function measuredOf({ arrivals, nowUs }: Recording, spanS: number): number | null {
  const ended = arrivals.filter(
    ({ end, tier, atUs }) => end === "done" && tier === "slo" && atUs >= nowUs - spanS * 1e6,
  )
  return ended.length === 0 ? null : ended.filter(({ attained }) => attained).length / ended.length
}

/** The search for the least number of replicas that is enough. Remembers every play. What more replicas keep is taken to be no
 * less. */
export class Search {
  readonly #now: number
  readonly #most: number
  readonly #target: number
  readonly #play: (count: number) => Forecast
  readonly #known = new Map<number, Forecast>()

  constructor(now: number, most: number, target: number, play: (count: number) => Forecast) {
    this.#now = now
    this.#most = most
    this.#target = target
    this.#play = play
  }

  get forecasts(): Forecast[] {
    return [...this.#known.values()].sort((a, b) => a.replicas - b.replicas)
  }

  at(count: number): Forecast {
    const known = this.#known.get(count) ?? this.#play(count)
    this.#known.set(count, known)
    return known
  }

  /** The least number that is enough, or the most there may be. Those beside the present one are played in any case. */
  *run(): Generator<Forecast, number, void> {
    const now = this.#now
    for (const count of [now, now - 1, now + 1]) if (count >= 1) yield this.at(count)
    const found = this.#enough(now) ? yield* this.#down() : yield* this.#up()
    yield this.at(1)
    return found
  }

  /** More are asked for as soon as the target is missed; fewer only where it is surely kept. */
  #enough(count: number): boolean {
    const forecast = this.at(count)
    return (count < this.#now ? surely(forecast) : attainmentOf(forecast)) >= this.#target
  }

  *#down(): Generator<Forecast, number, void> {
    let high = this.#now
    for (let stride = 1; high > 1; stride *= 2) {
      const low = Math.max(1, high - stride)
      yield this.at(low)
      if (!this.#enough(low)) return yield* this.#between(low, high)
      high = low
    }
    return high
  }

  *#up(): Generator<Forecast, number, void> {
    let low = this.#now
    for (let stride = 1; low < this.#most; stride *= 2) {
      const high = Math.min(this.#most, low + stride)
      yield this.at(high)
      if (this.#enough(high)) return yield* this.#between(low, high)
      low = high
    }
    return this.#most
  }

  /** `low` is too few, `high` enough. */
  *#between(low: number, high: number): Generator<Forecast, number, void> {
    while (high - low > 1) {
      const middle = (low + high) >> 1
      yield this.at(middle)
      if (this.#enough(middle)) high = middle
      else low = middle
    }
    return high
  }
}

/** All at once. */
export const adviseNow = (setup: FleetSetup, recording: Recording, options: AdviceOptions): Advice =>
  atOnce(advise(setup, recording, options))

export function atOnce<T>(steps: Generator<unknown, T, void>): T {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}
