/** Arrivals and a fleet for tests. */
import type { Slo } from "../core/protocol.ts"
import { Random } from "../random.ts"
import type { Arrival } from "./arrival.ts"
import type { FleetSetup } from "./play.ts"

export const SLO: Slo = {
  ...{ ttftUs: 2_000_000, ttftSlowdown: 0, tpotUs: 200_000, thinkingTpotUs: 200_000, maxGapUs: Infinity },
}

/** One that was served. */
export function arrival(atS: number, more: Partial<Arrival> = {}): Arrival {
  return {
    ...{ atUs: atS * 1e6, app: 0, session: -1, promptTokens: 400, maxOutputTokens: 0, outputTokens: 30 },
    ...{ thinkingTokens: 0, cachedTokens: 0, slo: SLO, tier: "slo", worth: 1, thinking: false },
    ...{ end: "done", endUs: (atS + 1) * 1e6, attained: true },
    ...more,
  }
}

/** A slow replica, so that tests are quick: it holds about one such request a second. */
export const SETUP: FleetSetup = {
  limits: {
    ...{ kvTokens: 16_384, blockTokens: 16, maxSequences: 32, maxBatchTokens: 512, contextTokens: 2048 },
    ...{ minChunkTokens: 1, unifiedKv: true },
  },
  cost: {
    ...{ pieces: [{ step: 50_000, tokens: 1500 }], residualSigma: 0.05, fastPassTokens: 1, unifiedKv: true },
  },
  ...{ calibration: 1, policy: "slos-serve", options: {}, apps: 1, acceptance: 0.7 },
  ...{ router: { kind: "offer", affinity: true, reoffers: 3 }, maxQueue: 1000 },
}

/** Poisson arrivals from `fromS` to `toS` at a rate that may change over time. */
export function poisson(rateAt: (atS: number) => number, fromS: number, toS: number, seed = 1): Arrival[] {
  const random = new Random("arrivals", seed)
  const found: Arrival[] = []
  for (let at = fromS; ; ) {
    at += random.exponential(1 / rateAt(at))
    if (at >= toS) return found
    const promptTokens = 200 + Math.floor(400 * random.uniform())
    found.push(arrival(at, { promptTokens, outputTokens: 10 + Math.floor(40 * random.uniform()) }))
  }
}
