/** A simulated engine with a cost model that is not told, and what a gateway in front of it sees: tokens after a network
 * that delays, jitters and brings some together. */
import type { CostModel } from "../core/cost.ts"
import type { PolicyName } from "../core/policy/index.ts"
import type { EngineLimits, RequestId } from "../core/protocol.ts"
import { specOf } from "../core/testing.ts"
import { chance, normalChance } from "../sim/chance.ts"
import { simulateFleet } from "../sim/fleet.ts"
import type { SimRequest } from "../sim/world.ts"
import type { Twin, TwinOffer, TwinSpec } from "./twin.ts"

export interface Hidden {
  truth: CostModel
  policy: PolicyName
  limits: EngineLimits
  tokenBudget: number
  noiseSigma: number
}

export interface Network {
  /** One way, µs. */
  delayUs: number
  /** Mean of an exponential further delay of each chunk, µs. */
  jitterUs: number
  /** Chunks leave at multiples of this, µs: a proxy that gathers. 1 = none. */
  gatherUs: number
}

export interface Traffic {
  seed: number
  requests: number
  /** Mean gap between arrivals (exponential), µs. */
  gapUs: number
  promptTokens: (request: number) => number
  outputTokens: (request: number) => number
  ttftUs?: number
  tpotUs?: number
}

/** What happens in front of the engine, in order of time. */
export type Sight =
  | { type: "sent"; atUs: number; spec: TwinSpec }
  | { type: "token"; atUs: number; id: RequestId; count: number }
  | { type: "ended"; atUs: number; id: RequestId }

export function trafficOf(traffic: Traffic): SimRequest[] {
  const { seed, gapUs, ttftUs = 1_000_000, tpotUs = 100_000 } = traffic
  let atUs = 0
  return Array.from({ length: traffic.requests }, (_, id) => {
    atUs += Math.max(1, Math.round(-Math.log(1 - chance(seed, id, 0)) * gapUs))
    const slo = { ...specOf(id).slo, ttftUs, tpotUs, thinkingTpotUs: tpotUs }
    const promptTokens = traffic.promptTokens(id)
    return {
      atUs,
      outputTokens: traffic.outputTokens(id),
      spec: specOf(id, { promptTokens, maxOutputTokens: 2000, slo }),
    }
  })
}

/** Lognormal around a median, from luck of its own. */
export function lengths(seed: number, median: number, sigma: number, most: number) {
  return (request: number) =>
    Math.max(1, Math.min(most, Math.round(median * Math.exp(sigma * normalChance(seed, request, 1)))))
}

/** All that is seen of the engine while it serves these requests. */
export function watch(hidden: Hidden, requests: readonly SimRequest[], network: Network, seed = 1): Sight[] {
  const { delayUs, jitterUs, gatherUs } = network
  const sights: Sight[] = requests.map(({ atUs, spec }) => ({ type: "sent", atUs, spec }))
  /** A stream's chunks stay in order. */
  const latestUs = new Map<RequestId, number>()
  const seenUs = (id: RequestId, nowUs: number) => {
    const latest = latestUs.get(id) ?? 0
    const jitter = -Math.log(1 - chance(seed, id, nowUs)) * jitterUs
    const atUs = Math.max(latest, Math.ceil((nowUs + delayUs + jitter) / gatherUs) * gatherUs)
    latestUs.set(id, atUs)
    return atUs
  }
  simulateFleet({
    seed,
    noiseSigma: hidden.noiseSigma,
    truth: hidden.truth,
    requests: requests.map((request) => ({ ...request, atUs: request.atUs + delayUs })),
    replicas: [
      {
        ...{ limits: hidden.limits, cost: hidden.truth, policy: hidden.policy, apps: 1 },
        options: { tokenBudget: hidden.tokenBudget },
      },
    ],
    onEffect(effect, nowUs) {
      if (effect.type === "token")
        sights.push({ type: "token", atUs: seenUs(effect.id, nowUs), id: effect.id, count: effect.count })
      else if (effect.type === "finished")
        sights.push({ type: "ended", atUs: seenUs(effect.id, nowUs), id: effect.id })
    },
  })
  return sights.sort((a, b) => a.atUs - b.atUs)
}

export interface Predicted {
  id: RequestId
  offer: TwinOffer
  /** From sending to the first token, µs. */
  predictedUs: number
  actualUs: number
}

/** Let a twin see it all; before each request is sent it says what it expects. */
export function predict(twin: Twin, sights: readonly Sight[]): Predicted[] {
  const open = new Map<RequestId, { offer: TwinOffer; sentUs: number }>()
  const predicted: Predicted[] = []
  for (const sight of sights) {
    if (sight.type === "sent") {
      const { id } = sight.spec
      open.set(id, { offer: twin.offer(sight.spec, sight.atUs), sentUs: sight.atUs })
      twin.sent(id, sight.spec, sight.atUs)
    } else if (sight.type === "token") {
      const first = open.get(sight.id)
      if (first !== undefined) {
        const { offer, sentUs } = first
        const predictedUs = offer.firstTokenUs - sentUs
        predicted.push({ id: sight.id, offer, predictedUs, actualUs: sight.atUs - sentUs })
        open.delete(sight.id)
      }
      twin.tokens(sight.id, sight.count, sight.atUs)
    } else twin.ended(sight.id, sight.atUs)
  }
  return predicted
}

export interface Errors {
  count: number
  /** Of |predicted / actual − 1|. */
  median: number
  p90: number
  /** Mean of predicted − actual over mean actual: below 0 it promises too much. */
  bias: number
  meanTtftUs: number
}

export function errorsOf(predicted: readonly Predicted[]): Errors {
  const ratios = predicted
    .map(({ predictedUs, actualUs }) => Math.abs(predictedUs / actualUs - 1))
    .sort((a, b) => a - b)
  const at = (share: number) => ratios[Math.min(ratios.length - 1, Math.floor(share * ratios.length))]!
  const sum = (of: (p: Predicted) => number) => predicted.reduce((total, p) => total + of(p), 0)
  const actual = sum((p) => p.actualUs)
  return {
    count: predicted.length,
    median: at(0.5),
    p90: at(0.9),
    bias: sum((p) => p.predictedUs - p.actualUs) / actual,
    meanTtftUs: actual / predicted.length,
  }
}
