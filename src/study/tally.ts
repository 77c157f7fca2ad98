/** Counts what happened in a run: attainment in all its cuts, latencies, and a coarse timeline. */
import { quantileSorted } from "simple-statistics"
import type { Effect, Outcome } from "../core/protocol.ts"
import type { Played } from "./workload.ts"

/** Kept of total; a tool session is one. */
export interface Share {
  kept: number
  total: number
}

export interface Quantiles {
  p50: number
  p90: number
  p99: number
  count: number
}

/** One slice of the timeline. Requests by time of arrival; the rest as seen at the slice's end. */
export interface Slice {
  atS: number
  kept: number
  total: number
  /** Requests in the system, and those of them that have begun. */
  live: number
  running: number
  /** Share of the fleet's KV that computed tokens take. */
  kv: number
}

export const share = ({ kept, total }: Share): number => (total === 0 ? 0 : kept / total)

/** Running totals; `record` methods are called once an event. */
export class Tally {
  readonly strict: Share = { kept: 0, total: 0 }
  readonly every10: Share = { kept: 0, total: 0 }
  readonly byClass = new Map<string, Share>()
  readonly byStage = new Map<string, Share>()
  readonly sized: { tokens: number; kept: boolean }[] = []
  readonly ttftMs: number[] = []
  readonly tpotMs: number[] = []
  readonly bestEffortMs: number[] = []
  revoked = 0
  demoted = 0
  promoted = 0
  preempted = 0
  rejected = 0

  /** One round's answer ended (tool sessions have several). */
  round(className: string, outcome: Outcome): void {
    add(this.byStageOf(`${className} first token`), stageKept(outcome, "prefill"))
    for (const { stage, attained } of outcome.stages) {
      if (stage !== "prefill") add(this.byStageOf(`${className} ${stage}`), attained)
    }
    if (outcome.firstTokenUs >= 0) this.ttftMs.push((outcome.firstTokenUs - outcome.arrivalUs) / 1000)
    if (outcome.outputTokens > 1) {
      this.tpotMs.push((outcome.finishedUs - outcome.firstTokenUs) / 1000 / (outcome.outputTokens - 1))
    }
    if (outcome.servedTier === "bestEffort")
      this.bestEffortMs.push((outcome.finishedUs - outcome.arrivalUs) / 1000)
  }

  /** A whole planned request ended. */
  request(played: Played): void {
    add(this.strict, played.ok)
    add(this.every10, played.okEvery10)
    const { app } = played.planned
    if (!this.byClass.has(app)) this.byClass.set(app, { kept: 0, total: 0 })
    add(this.byClass.get(app)!, played.ok)
    this.sized.push({ tokens: played.tokens, kept: played.ok })
  }

  effect(effect: Effect): void {
    if (effect.type === "demoted") {
      this.demoted++
      if (effect.reason === "revoked") this.revoked++
    } else if (effect.type === "promoted") this.promoted++
    else if (effect.type === "preempted") this.preempted++
    else if (effect.type === "rejected") this.rejected++
  }

  byStageOf(name: string): Share {
    const known = this.byStage.get(name) ?? { kept: 0, total: 0 }
    this.byStage.set(name, known)
    return known
  }
}

function add(to: Share, kept: boolean): void {
  to.kept += kept ? 1 : 0
  to.total++
}

function stageKept(outcome: Outcome, name: string): boolean {
  return outcome.stages.find(({ stage }) => stage === name)?.attained ?? outcome.attained
}

export function quantiles(values: readonly number[]): Quantiles {
  const sorted = Float64Array.from(values).sort() as unknown as number[]
  const at = (level: number) => (sorted.length === 0 ? 0 : quantileSorted(sorted, level))
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), count: values.length }
}

/** Attainment by tenth of the requests in order of size (tokens of prompt and output). */
export function deciles(sized: readonly { tokens: number; kept: boolean }[]): (Share & { upTo: number })[] {
  const sorted = [...sized].sort((a, b) => a.tokens - b.tokens)
  return Array.from({ length: 10 }, (_, i) => {
    const part = sorted.slice(
      Math.floor((i * sorted.length) / 10),
      Math.floor(((i + 1) * sorted.length) / 10),
    )
    const kept = part.filter((request) => request.kept).length
    return { upTo: part.at(-1)?.tokens ?? 0, kept, total: part.length }
  })
}
