/** Arrivals against the production driver on virtual time; what finds no place comes back when it was told to, and is seen by what it
 * meets then. Beside that it is asked again and again when requests like it would have been taken. */
import type { EngineLimits, Slo, Tier } from "../../src/core/protocol.ts"
import { fakeEngine } from "../../src/engine/fake/engine.ts"
import { GREEDY } from "../../src/engine/port.ts"
import { Random } from "../../src/random.ts"
import { ReplicaDriver, type Requested } from "../../src/replica/driver.ts"
import { VirtualClock } from "../../src/replica/testing.ts"
import { type Rule, toldByServer } from "./rules.ts"

export interface Scenario {
  name: string
  /** Before and after, requests/s. */
  calmPerSec: number
  calmS: number
  /** At the burst's start all at once, then so many a second for so long. */
  atOnce: number
  burstPerSec: number
  burstS: number
  maxQueue: number
  /** Share of the refused that come back, as often as they are told to. */
  returns: number
}

export interface Refusal {
  kind: number
  /** When, and when it was told to come back, µs. */
  atUs: number
  toldUs: number
  /** 0: when it came. */
  tries: number
  /** What it met then; null: it did not come back, or none knows. */
  taken: boolean | null
  /** Taken then, its SLO was kept. */
  kept: boolean
}

export interface Seen {
  refusals: Refusal[]
  /** Of requests: all, served in the end, those of them that were refused at first; how long that kept them, s. */
  requests: number
  served: number
  delaysS: number[]
  /** With an SLO: all, and those that kept it. */
  timed: number
  kept: number
  /** By kind, every `PROBE_US`: whether it would be taken, and whether promised. */
  room: { taken: boolean; promised: boolean }[][]
  /** When the last refused one was served, after the burst's end, s. */
  overS: number
}

export const PROBE_US = 100_000
const AFTER_S = 240

const LIMITS: EngineLimits = {
  ...{ kvTokens: 32 * 4096, blockTokens: 16, maxSequences: 32, maxBatchTokens: 512 },
  ...{ contextTokens: 4096, minChunkTokens: 1, unifiedKv: true },
}
/** As --engine fake: a model of 135M parameters on a laptop's core. */
const COST = {
  pieces: [{ step: 5000, tokens: 150, sequences: 150 }],
  residualSigma: 0.05,
  fastPassTokens: 1,
  unifiedKv: true,
}
const NONE = Number.POSITIVE_INFINITY
const TIMED: Slo = { ttftUs: 1e6, ttftSlowdown: 0, tpotUs: 50_000, thinkingTpotUs: NONE, maxGapUs: NONE }
const UNTIMED: Slo = { ttftUs: NONE, ttftSlowdown: 0, tpotUs: NONE, thinkingTpotUs: NONE, maxGapUs: NONE }

interface Kind {
  app: number
  tier: Tier
  slo: Slo
  promptTokens: number
  outputTokens: number
}
/** Three of four with an SLO. */
export const KINDS: readonly Kind[] = [
  { app: 0, tier: "slo", slo: TIMED, promptTokens: 60, outputTokens: 120 },
  { app: 0, tier: "slo", slo: TIMED, promptTokens: 300, outputTokens: 200 },
  { app: 0, tier: "slo", slo: TIMED, promptTokens: 900, outputTokens: 160 },
  { app: 1, tier: "bestEffort", slo: UNTIMED, promptTokens: 200, outputTokens: 200 },
]
const PROMPTS = KINDS.map(({ promptTokens }, k) =>
  Int32Array.from({ length: promptTokens }, (_, i) => (i * 7 + k) % 200),
)

export async function play(scenario: Scenario, rule: Rule, seed: number): Promise<Seen> {
  return new Play(scenario, rule, seed).run()
}

class Play {
  readonly #scenario: Scenario
  readonly #rule: Rule
  readonly #random: Random
  readonly #luck: Random
  readonly #clock = new VirtualClock()
  readonly #driver: ReplicaDriver
  readonly #endUs: number
  readonly #burstEndUs: number
  readonly #seen: Seen

  constructor(scenario: Scenario, rule: Rule, seed: number) {
    this.#scenario = scenario
    this.#rule = rule
    this.#random = new Random(seed, "arrivals")
    this.#luck = new Random(seed, "told")
    const clock = this.#clock
    const outputTokens = (_id: number, promptTokens: number) =>
      KINDS.find((kind) => kind.promptTokens === promptTokens)!.outputTokens
    const engine = fakeEngine({ cost: COST, limits: LIMITS, time: clock, outputTokens, noise: 0.05, seed })
    const config = {
      limits: LIMITS,
      cost: COST,
      policy: "slos-serve",
      apps: 2,
      maxQueue: scenario.maxQueue,
    } as const
    this.#driver = new ReplicaDriver({ engine, config, clock })
    this.#burstEndUs = (scenario.calmS + scenario.burstS) * 1e6
    this.#endUs = this.#burstEndUs + AFTER_S * 1e6
    const counts = { requests: 0, served: 0, timed: 0, kept: 0, overS: 0 }
    this.#seen = { ...counts, refusals: [], delaysS: [], room: KINDS.map(() => []) }
  }

  async run(): Promise<Seen> {
    const { calmS, calmPerSec, atOnce, burstPerSec, burstS } = this.#scenario
    this.#arrivals(0, calmS, calmPerSec)
    this.#clock.wakeAt(calmS * 1e6, () => {
      for (let i = 0; i < atOnce; i++) this.#arrives(this.#drawn())
    })
    this.#arrivals(calmS, calmS + burstS, burstPerSec)
    this.#arrivals(calmS + burstS, calmS + burstS + AFTER_S, calmPerSec)
    this.#probe()
    await this.#clock.run()
    return this.#seen
  }

  #drawn(): number {
    return this.#random.below(KINDS.length)
  }

  /** A Poisson process. */
  #arrivals(fromS: number, toS: number, perSec: number): void {
    if (perSec === 0) return
    const random = this.#random
    let atUs = fromS * 1e6
    const next = () => {
      atUs += Math.round(random.exponential(1e6 / perSec))
      if (atUs < toS * 1e6)
        this.#clock.wakeAt(atUs, () => {
          this.#arrives(this.#drawn())
          next()
        })
    }
    this.#clock.wakeAt(atUs, next)
  }

  #arrives(kind: number): void {
    this.#seen.requests++
    if (KINDS[kind]!.tier === "slo") this.#seen.timed++
    this.#try(kind, this.#clock.nowUs(), 0, null)
  }

  #requested(kind: number): Requested {
    const { app, tier, slo, outputTokens } = KINDS[kind]!
    return {
      ...{ app, tier, slo, session: -1, prompt: PROMPTS[kind]!, prefix: [], thinking: false },
      ...{ maxOutputTokens: outputTokens, sampling: GREEDY, arrivalUs: this.#clock.nowUs() },
    }
  }

  /** As an intake does it. */
  #try(kind: number, firstUs: number, tries: number, before: Refusal | null): void {
    const nowUs = this.#clock.nowUs()
    const requested = this.#requested(kind)
    const places = this.#driver.reserve(1, 0, requested.tier === "slo" ? "promise" : "room")
    const refused = typeof places === "string" || (places.onPromise && !this.#driver.promises(requested))
    if (before !== null) before.taken = !refused
    if (refused) {
      if (typeof places !== "string") this.#driver.giveBack(places)
      this.#refused(kind, firstUs, tries)
      return
    }
    if (tries > 0) {
      this.#seen.delaysS.push((nowUs - firstUs) / 1e6)
      this.#seen.overS = Math.max(this.#seen.overS, (nowUs - this.#burstEndUs) / 1e6)
    }
    this.#driver.submit(
      {
        ...requested,
        onTokens: (row) => ({ stopped: row.end, answeringFrom: -1 }),
        onEnd: ({ outcome }) => {
          this.#seen.served++
          if (outcome?.attained) this.#seen.kept++
          if (before !== null) before.kept = outcome?.attained ?? false
          this.#rule.left?.(this.#clock.nowUs())
        },
      },
      places,
    )
  }

  #refused(kind: number, firstUs: number, tries: number): void {
    const nowUs = this.#clock.nowUs()
    const chance = () => this.#luck.uniform()
    const driver = this.#driver
    const toldMs = this.#rule.tell({ driver, told: () => toldByServer(driver), nowUs, chance })
    const toldUs = nowUs + Math.round(toldMs * 1000)
    const refusal: Refusal = { kind, atUs: nowUs, toldUs, tries, taken: null, kept: false }
    this.#seen.refusals.push(refusal)
    if (tries === 0 && chance() >= this.#scenario.returns) return
    if (toldUs < this.#endUs) this.#clock.wakeAt(toldUs, () => this.#try(kind, firstUs, tries + 1, refusal))
  }

  #probe(): void {
    const { queue } = this.#driver
    for (const [kind, seen] of this.#seen.room.entries()) {
      const requested = this.#requested(kind)
      const promised = requested.tier === "slo" && this.#driver.promises(requested)
      const taken = queue.hasRoom(1, 0) || (promised && queue.hasRoomBeyond(1))
      seen.push({ taken, promised })
    }
    const nextUs = this.#clock.nowUs() + PROBE_US
    if (nextUs < this.#endUs) this.#clock.wakeAt(nextUs, () => this.#probe())
  }
}
