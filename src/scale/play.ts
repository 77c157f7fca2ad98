/** Plays recorded arrivals through the fleet simulator, which is the production core on virtual time, with any number of
 * replicas: what would such a fleet have kept of them? */
import type { CostModel } from "../core/cost.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { Effect, EngineLimits, RequestId } from "../core/protocol.ts"
import { type Quantiles, quantiles } from "../load/statistics.ts"
import type { RouterOptions } from "../router/router.ts"
import { simulateFleet } from "../sim/fleet.ts"
import type { SimRequest } from "../sim/world.ts"
import { type Arrival, blocksOf } from "./arrival.ts"

/** One replica of the fleet and the router before them, as plain data. */
export interface FleetSetup {
  limits: EngineLimits
  cost: CostModel
  /** Real over modelled step time, as it was learnt. */
  calibration: number
  policy: PolicyName
  options: Partial<PolicyOptions>
  /** Number of SLO classes. */
  apps: number
  /** Chance that a drafted token is accepted. */
  acceptance: number
  router: RouterOptions
  maxQueue: number
}

/** What is played: some arrivals that warm the fleet up, those that count, and some that keep it busy after them. */
export interface Score {
  arrivals: readonly Arrival[]
  /** Those in [from, to) count. */
  fromUs: number
  toUs: number
}

export interface Forecast {
  replicas: number
  /** Requests with SLOs that were counted, and those of them that kept every one. */
  total: number
  kept: number
  /** Share of the counted time in which replicas compute nothing. */
  idleShare: number
  /** To the first token, ms, of requests that missed and had one; null where there are none, or the play was cut short. */
  missedTtftMs: Quantiles | null
}

export const attainmentOf = ({ kept, total }: Pick<Forecast, "kept" | "total">): number =>
  total === 0 ? 1 : kept / total

export interface PlayOptions {
  seed: number
  /** Stop once each counted request has kept or missed its SLOs, though some of those that missed still wait. */
  untilDecided?: boolean
}

const ROUNDS_OF_A_TOKEN = 50
class Decided extends Error {}

export function play(setup: FleetSetup, score: Score, replicas: number, options: PlayOptions): Forecast {
  return new Play(setup, score, replicas, options).run()
}

class Play {
  readonly #setup: FleetSetup
  readonly #score: Score
  readonly #replicas: number
  readonly #options: PlayOptions
  readonly #requests: SimRequest[]
  /** Counted requests that may still keep their SLOs, and when their first token is due, if that is known. */
  readonly #open = new Set<RequestId>()
  #total = 0
  #kept = 0
  #busyUs = 0
  readonly #missedTtftMs: number[] = []

  constructor(setup: FleetSetup, score: Score, replicas: number, options: PlayOptions) {
    this.#setup = setup
    this.#score = score
    this.#replicas = replicas
    this.#options = options
    this.#requests = requestsOf(score, setup)
    for (const { spec, atUs } of this.#requests)
      if (spec.tier === "slo" && this.#counts(atUs)) this.#open.add(spec.id)
    this.#total = this.#open.size
  }

  run(): Forecast {
    try {
      this.#simulate()
    } catch (error) {
      if (!(error instanceof Decided)) throw error
    }
    const { fromUs, toUs } = this.#score
    const room = this.#replicas * Math.max(1, toUs - fromUs)
    return {
      ...{ replicas: this.#replicas, total: this.#total, kept: this.#kept },
      idleShare: Math.max(0, 1 - this.#busyUs / room),
      missedTtftMs: this.#options.untilDecided ? null : quantiles(this.#missedTtftMs),
    }
  }

  #simulate(): void {
    const { limits, cost, calibration, policy, options, apps, router, maxQueue } = this.#setup
    const config = { limits, cost, policy, options, apps, maxQueue }
    const tokens = this.#requests.reduce((sum, { outputTokens }) => sum + outputTokens + 20, 1000)
    simulateFleet({
      replicas: Array.from({ length: this.#replicas }, () => config),
      requests: this.#requests,
      bias: calibration,
      noiseSigma: cost.residualSigma,
      seed: this.#options.seed,
      router,
      onEffect: (effect, nowUs) => this.#effect(effect, nowUs),
      maxPolls: ROUNDS_OF_A_TOKEN * tokens,
    })
  }

  #counts(atUs: number): boolean {
    return atUs >= this.#score.fromUs && atUs < this.#score.toUs
  }

  #effect(effect: Effect, nowUs: number): void {
    if (effect.type === "run") {
      if (this.#counts(nowUs)) this.#busyUs += effect.batch.predictedUs
    } else if (effect.type === "finished") this.#finished(effect)
    else if (effect.type === "rejected") this.#missed(effect.id)
    else if (effect.type === "token" && effect.lateUs > 0) this.#missed(effect.id)
    else if (effect.type === "demoted" && effect.reason === "violated") this.#missed(effect.id)
  }

  #finished({ id, outcome }: Extract<Effect, { type: "finished" }>): void {
    if (
      outcome.tier === "slo" &&
      this.#counts(outcome.arrivalUs) &&
      !outcome.attained &&
      outcome.firstTokenUs >= 0
    )
      this.#missedTtftMs.push((outcome.firstTokenUs - outcome.arrivalUs) / 1000)
    if (outcome.attained && this.#open.has(id)) this.#kept++
    this.#missed(id)
  }

  /** Nothing that comes can make it keep its SLOs. */
  #missed(id: RequestId): void {
    if (this.#open.delete(id) && this.#open.size === 0 && this.#options.untilDecided) throw new Decided()
  }
}

/** As the simulator wants them. */
function requestsOf({ arrivals }: Score, { limits, apps, acceptance }: FleetSetup): SimRequest[] {
  const names = new Map<string, number>()
  const nameOf = (shared: string) => {
    const known = names.get(shared) ?? names.size
    names.set(shared, known)
    return known
  }
  const blocks = (tokens: number) => Math.floor(tokens / limits.blockTokens)
  return arrivals.flatMap((arrival, id): SimRequest[] => {
    const { promptTokens, cachedTokens, session } = arrival
    // What was recorded elsewhere may not fit here.
    const room = Math.min(limits.contextTokens, limits.kvTokens) - promptTokens
    if (room < 1) return []
    const outputTokens = Math.min(arrival.outputTokens, room)
    const sizes = { blocks: blocks(promptTokens + outputTokens), cached: blocks(cachedTokens) }
    const hashes = blocksOf(arrival, sizes, nameOf, id)
    return [
      {
        atUs: Math.round(arrival.atUs),
        ...{ outputTokens, thinkingTokens: Math.min(arrival.thinkingTokens, outputTokens - 1), acceptance },
        ...(session >= 0 && { blocks: hashes }),
        spec: {
          ...{ id, app: Math.min(arrival.app, apps - 1), session, promptTokens },
          maxOutputTokens: Math.max(outputTokens, Math.min(room, arrival.maxOutputTokens || room)),
          prefix: hashes.slice(0, blocks(promptTokens)),
          ...{ slo: arrival.slo, tier: arrival.tier, worth: arrival.worth, thinking: arrival.thinking },
        },
      },
    ]
  })
}
