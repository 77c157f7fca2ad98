/** One simulated run: a scenario played through a fleet of the production core on virtual time, and judged. */

import type { CostModel } from "../core/cost.ts"
import type { Effect } from "../core/protocol.ts"
import type { ReplicaConfig } from "../core/replica.ts"
import { type Quantiles, quantiles, type Share } from "../load/statistics.ts"
import { APPS } from "../load/workload.ts"
import { type FleetOptions, type FleetResult, simulateFleet } from "../sim/fleet.ts"
import { limitsOf } from "../sim/presets.ts"
import { ComputedTokens } from "./computed-tokens.ts"
import { type Check, Misses } from "./misses.ts"
import { type RunSpec, routerFor } from "./spec.ts"
import { deciles, type Slice, Tally } from "./tally.ts"
import { Timeline } from "./timeline.ts"
import { type Played, Workload } from "./workload.ts"

export interface RunReport {
  /** Of the counted requests: those that kept every SLO, token by token. */
  attainment: Share
  /** By the paper's check: first token, every tenth and the last. */
  attainmentEvery10: Share
  byClass: Record<string, Share>
  byStage: Record<string, Share>
  bySizeDecile: (Share & { upTo: number })[]
  /** Of each counted round, best-effort or not. */
  ttftMs: Quantiles | null
  tpotMs: Quantiles | null
  /** From arrival to last token of requests that ended as best-effort. */
  bestEffortMs: Quantiles | null
  /** From arrival to first token of the requests that missed, whatever they were served as; of a tool session the
   * longest of its rounds. A request that was rejected never had one. */
  missedTtftMs: Quantiles | null
  /** Rounds that missed, by the cause of their first late token (docs/api.md, Why was it slow). */
  causes: Record<string, number>
  /** The longest pause between two tokens of each request that had two. */
  longestPauseMs: Quantiles | null
  /** Of counted requests that kept every SLO, per second of their arrivals. Prompts count what is new in a round. */
  goodput: { requestsPerSec: number; promptTokensPerSec: number; outputTokensPerSec: number }
  /** Share of the tokens computed for counted requests that went to requests that missed. */
  missedWorkShare: number
  /** Share of the time that each replica was computing. */
  utilization: number[]
  revoked: number
  demoted: number
  promoted: number
  preempted: number
  rejected: number
  /** Requests that went on at another replica. */
  moved: number
  /** Planned requests, those of the lead-in included. */
  planned: number
  endS: number
  steps: number
  batchTokens: number
  sources: Record<string, string>
  /** The run was stopped because more than the allowed share had missed: attainment is an upper bound. */
  stopped: boolean
  timeline: Slice[]
}

export interface RunExtras {
  timeline?: boolean
  /** Stop as soon as more than this share of the counted requests has missed. */
  stopAtMissed?: number
  /** Which tokens must be in time for that. Default: every one. */
  check?: Check
  /** Every effect, for logs. */
  onEffect?: (effect: Effect, nowUs: number, replica: number) => void
}

/** Between GPUs that prefill and GPUs that decode: 25 GB/s, what a 200 Gb/s link or PCIe 4 carries; KV of OPT-6.7B
 * where the hardware does not say. */
const LINK_BYTES_PER_US = 25_000
const LINK_LATENCY_US = 1000
const OPT_KV_BYTES = 524_288

/** Decisions per planned token after which a run is taken to be going in circles. */
const POLLS_PER_TOKEN = 50

export function runScenario(spec: RunSpec, extras: RunExtras = {}): RunReport {
  return new Run(spec, extras).play()
}

class TooManyMissed extends Error {}

class Run {
  #spec: RunSpec
  #extras: RunExtras
  #workload: Workload
  #tally = new Tally()
  #timeline: Timeline | null
  #toCount: number
  #misses: Misses | null
  /** Left out where only attainment is asked: a search makes many runs. */
  #computed: ComputedTokens | null

  constructor(spec: RunSpec, extras: RunExtras) {
    this.#spec = spec
    this.#extras = extras
    this.#workload = new Workload(spec)
    this.#toCount = this.#workload.counted
    const searching = extras.stopAtMissed !== undefined
    this.#misses = searching ? new Misses(this.#workload.awaited(), extras.check) : null
    this.#computed = searching ? null : new ComputedTokens()
    const kvTokens = spec.hardware.kvTokens * spec.replicas
    this.#timeline = extras.timeline ? new Timeline(spec.durationS * 1e6, kvTokens) : null
  }

  play(): RunReport {
    try {
      return this.#report(simulateFleet(this.#fleet()))
    } catch (error) {
      if (!(error instanceof TooManyMissed)) throw error
      return this.#report(null)
    }
  }

  #fleet(): FleetOptions {
    const {
      policy,
      noiseSigma,
      bias,
      truth,
      learnCost,
      seed,
      router,
      split,
      hardware,
      staleMs = 0,
    } = this.#spec
    return {
      replicas: replicaConfigs(this.#spec),
      requests: this.#workload.first,
      noiseSigma,
      bias,
      ...(truth && { truth }),
      ...(learnCost && { learnCost: hardware.cost.graphs ? { graphs: hardware.cost.graphs } : {} }),
      seed,
      router: router ?? routerFor(policy),
      ...(staleMs > 0 && { faults: [{ kind: "staleSnapshots", ageUs: staleMs * 1000 }] }),
      ...(split && {
        disaggregated: {
          ...split,
          transferUsPerToken: (hardware.kvBytesPerToken ?? OPT_KV_BYTES) / LINK_BYTES_PER_US,
          transferLatencyUs: LINK_LATENCY_US,
        },
      }),
      follow: (id, nowUs) => this.#workload.follow(id, nowUs),
      onEffect: (effect, nowUs, replica) => this.#effect(effect, nowUs, replica),
      maxPolls: this.#mostPolls(),
    }
  }

  #mostPolls(): number {
    let tokens = 0
    for (const { rounds } of this.#workload.plan.requests)
      for (const round of rounds) tokens += round.outputTokens + 20
    return 1000 + POLLS_PER_TOKEN * tokens
  }

  #effect(effect: Effect, nowUs: number, replica: number): void {
    this.#extras.onEffect?.(effect, nowUs, replica)
    this.#timeline?.effect(effect, nowUs)
    this.#tally.effect(effect)
    this.#computed?.effect(effect)
    this.#watch(effect, nowUs)
    if (effect.type === "rejected") this.#ended(effect.id, null)
    else if (effect.type === "finished") this.#ended(effect.id, effect)
  }

  #ended(id: number, effect: Extract<Effect, { type: "finished" }> | null): void {
    const workload = this.#workload
    const played = workload.sessions.get(id)!
    const { planned, counted } = played
    this.#note(played, id, effect)
    if (counted && effect !== null) {
      this.#tally.round(planned.rounds[played.round]!.class, effect.outcome)
    }
    if (effect !== null) this.#timeline?.present(effect.outcome.arrivalUs, effect.outcome.finishedUs)
    const over = workload.ended(id, effect?.outcome ?? null)
    if (over === null) return
    this.#timeline?.ended(planned.atMs * 1000, over.ok)
    if (counted) this.#tally.request(over)
  }

  /** What this round adds to its request. */
  #note(played: Played, id: number, effect: Extract<Effect, { type: "finished" }> | null): void {
    if (this.#computed === null) return
    played.computedTokens += this.#computed.take(id)
    const { firstTokenUs = -1, arrivalUs = 0, maxGapUs = 0 } = effect?.outcome ?? {}
    // Tokens that all came at once have no pause between them.
    if (maxGapUs > 0) played.longestPauseMs = Math.max(played.longestPauseMs, maxGapUs / 1000)
    if (firstTokenUs >= 0)
      played.longestTtftMs = Math.max(played.longestTtftMs, (firstTokenUs - arrivalUs) / 1000)
  }

  /** Stops a run that is decided. */
  #watch(effect: Effect, nowUs: number): void {
    if (this.#misses === null) return
    this.#misses.effect(effect, nowUs)
    if (this.#misses.count > this.#extras.stopAtMissed! * this.#toCount) throw new TooManyMissed()
  }

  /** `result` null: the run was stopped. */
  #report(result: FleetResult | null): RunReport {
    const tally = this.#tally
    const stopped = result === null
    const endUs = result?.endUs ?? 0
    const total = this.#toCount
    const strict = { attained: tally.strict.attained, total }
    const every10 = { attained: tally.every10.attained, total }
    if (stopped) {
      const judged = this.#extras.check === "everyTenth" ? every10 : strict
      judged.attained = total - this.#misses!.count
    }
    const { durationMs, sources } = this.#workload.plan.header
    const perSec = (count: number) => (count * 1000) / (durationMs * (1 - this.#spec.leadIn))
    return {
      attainment: strict,
      attainmentEvery10: every10,
      byClass: Object.fromEntries(tally.byClass),
      byStage: Object.fromEntries(tally.byStage),
      bySizeDecile: deciles(tally.sized),
      ttftMs: quantiles(tally.ttftMs),
      tpotMs: quantiles(tally.tpotMs),
      bestEffortMs: quantiles(tally.bestEffortMs),
      missedTtftMs: quantiles(tally.missedTtftMs),
      causes: Object.fromEntries([...tally.causes].sort(([, a], [, b]) => b - a)),
      longestPauseMs: quantiles(tally.longestPauseMs),
      goodput: {
        requestsPerSec: perSec(tally.strict.attained),
        promptTokensPerSec: perSec(tally.goodPromptTokens),
        outputTokensPerSec: perSec(tally.goodOutputTokens),
      },
      missedWorkShare: tally.missedComputedTokens / Math.max(1, tally.computedTokens),
      utilization: Array.from(result?.busyUs ?? [], (us) => us / Math.max(1, endUs)),
      revoked: tally.revoked,
      demoted: tally.demoted,
      promoted: tally.promoted,
      preempted: tally.preempted,
      rejected: tally.rejected,
      moved: result?.moved ?? 0,
      planned: this.#workload.plan.requests.length,
      endS: endUs / 1e6,
      steps: result?.steps ?? 0,
      batchTokens: result?.batchTokens ?? 0,
      sources,
      stopped,
      timeline: this.#timeline?.slices() ?? [],
    }
  }
}

export function replicaConfigs(spec: RunSpec): ReplicaConfig[] {
  const config = replicaConfig(spec)
  const { paces = [1], depth = 1 } = spec
  const byPace = paces.map((pace) => ({
    ...config,
    ...(depth > 1 && { depth }),
    cost: slowed(config.cost, pace),
  }))
  return Array.from({ length: spec.replicas }, (_, i) => byPace[i % paces.length]!)
}

/** Every step takes `pace` times as long. */
function slowed(cost: CostModel, pace: number): CostModel {
  if (pace === 1) return cost
  const pieces = cost.pieces.map((piece) =>
    Object.fromEntries(Object.entries(piece).map(([feature, us]) => [feature, us * pace])),
  )
  const graphs = cost.graphs && {
    ...cost.graphs,
    piecewiseUs: cost.graphs.piecewiseUs * pace,
    eagerUs: cost.graphs.eagerUs * pace,
  }
  return { ...cost, pieces, ...(graphs && { graphs }) }
}

/** What one replica of this run believes and does. */
export function replicaConfig(spec: RunSpec): ReplicaConfig {
  const { hardware, policy, options, speculate } = spec
  const cost = speculate ? (hardware.draftCost ?? hardware.cost) : hardware.cost
  const speculation = speculate ? { speculation: "on" as const } : {}
  return {
    limits: limitsOf(hardware),
    cost,
    policy,
    apps: APPS.length,
    options: { ...speculation, ...options },
  }
}
