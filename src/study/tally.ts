/** Counts what happened in a run: attainment in all its cuts, latencies, and a coarse timeline. */
import type { Effect, Outcome } from "../core/protocol.ts"
import { reasonOf } from "../explain/reason.ts"
import { type Share, tenths } from "../load/statistics.ts"
import type { Played } from "./workload.ts"

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

export const share = ({ attained, total }: Share): number => (total === 0 ? 0 : attained / total)

/** Running totals; `record` methods are called once an event. */
export class Tally {
  readonly strict: Share = { attained: 0, total: 0 }
  readonly every10: Share = { attained: 0, total: 0 }
  readonly byClass = new Map<string, Share>()
  readonly byStage = new Map<string, Share>()
  readonly sized: { tokens: number; kept: boolean }[] = []
  readonly ttftMs: number[] = []
  readonly tpotMs: number[] = []
  readonly bestEffortMs: number[] = []
  /** Of requests that missed: the longest wait for a first token among their rounds. */
  readonly missedTtftMs: number[] = []
  /** Rounds that missed, by the cause of their first late token. */
  readonly causes = new Map<string, number>()
  readonly longestPauseMs: number[] = []
  /** Of requests that kept every SLO. */
  goodPromptTokens = 0
  goodOutputTokens = 0
  /** Tokens computed in all, and for requests that missed: prompts, outputs, what was computed again or refused. */
  computedTokens = 0
  missedComputedTokens = 0
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
    const reason = reasonOf(outcome)
    if (reason !== null) this.causes.set(reason.code, (this.causes.get(reason.code) ?? 0) + 1)
    if (outcome.servedTier === "bestEffort")
      this.bestEffortMs.push((outcome.finishedUs - outcome.arrivalUs) / 1000)
  }

  /** A whole planned request ended. */
  request(played: Played): void {
    add(this.strict, played.ok)
    add(this.every10, played.okEvery10)
    const { app } = played.planned
    if (!this.byClass.has(app)) this.byClass.set(app, { attained: 0, total: 0 })
    add(this.byClass.get(app)!, played.ok)
    this.sized.push({ tokens: played.tokens, kept: played.ok })
    if (played.longestPauseMs >= 0) this.longestPauseMs.push(played.longestPauseMs)
    this.computedTokens += played.computedTokens
    if (!played.ok) {
      this.missedComputedTokens += played.computedTokens
      if (played.longestTtftMs >= 0) this.missedTtftMs.push(played.longestTtftMs)
      return
    }
    for (const { promptTokens, outputTokens } of played.planned.rounds) {
      this.goodPromptTokens += promptTokens
      this.goodOutputTokens += outputTokens
    }
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
    const known = this.byStage.get(name) ?? { attained: 0, total: 0 }
    this.byStage.set(name, known)
    return known
  }
}

function add(to: Share, kept: boolean): void {
  to.attained += kept ? 1 : 0
  to.total++
}

function stageKept(outcome: Outcome, name: string): boolean {
  return outcome.stages.find(({ stage }) => stage === name)?.attained ?? outcome.attained
}

/** Attainment by tenth of the requests in order of size (tokens of prompt and output). */
export function deciles(sized: readonly { tokens: number; kept: boolean }[]): (Share & { upTo: number })[] {
  return tenths(sized).map((part) => ({
    attained: part.filter(({ kept }) => kept).length,
    total: part.length,
    upTo: part.at(-1)?.tokens ?? 0,
  }))
}
