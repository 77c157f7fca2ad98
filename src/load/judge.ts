/** Judges one round as its tokens arrive (docs/design.md, Objectives): strictly per token, and as the paper does
 * (first, every 10th and last token). All times are ms since the round's scheduled send. */
import type { StageName } from "../core/protocol.ts"
import type { RoundSlo } from "./classes.ts"

export interface StageVerdict {
  stage: StageName
  attained: boolean
  /** Latest token against its due time; negative = early, null when no token of the stage came. */
  worstLateMs: number | null
}

/** What a judge must know of a round. */
export interface JudgedRound {
  slo: RoundSlo
  outputTokens: number
  thinkingTokens: number
}

export class Judge {
  /** Tokens seen so far. */
  tokens = 0
  private readonly round: JudgedRound
  private t0Ms = Number.NaN
  private lastMs = Number.NaN
  private readonly worst: Partial<Record<StageName, number>> = {}
  private lateEvery10 = false
  private lastLateMs = 0

  constructor(round: JudgedRound) {
    this.round = round
  }

  /** When the next token, number `n` (1-based), is due. */
  private dueMs(n: number): number {
    const { slo } = this.round
    return n === 1 ? slo.ttftMs : Math.min(this.paceDueMs(n), this.lastMs + slo.maxGapMs)
  }

  private paceDueMs(n: number): number {
    const { slo, thinkingTokens } = this.round
    const thinking = Math.max(0, Math.min(n, thinkingTokens) - 1)
    const answer = n - 1 - thinking
    return (
      this.t0Ms + (thinking > 0 ? thinking * slo.thinkingTpotMs : 0) + (answer > 0 ? answer * slo.tpotMs : 0)
    )
  }

  /** `count` tokens arrived at this time. */
  take(atMs: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const n = ++this.tokens
      const lateMs = atMs - this.dueMs(n)
      if (n === 1)
        this.t0Ms = Number.isFinite(this.round.slo.ttftMs) ? Math.max(this.round.slo.ttftMs, atMs) : atMs
      this.lastMs = atMs
      const stage = n === 1 ? "prefill" : n <= this.round.thinkingTokens ? "thinking" : "answer"
      this.worst[stage] = Math.max(this.worst[stage] ?? Number.NEGATIVE_INFINITY, lateMs)
      if ((n === 1 || n % 10 === 0) && lateMs > 0) this.lateEvery10 = true
      this.lastLateMs = lateMs
    }
  }

  /** Already missed at this time, whatever comes: a token was late or the next one is overdue. */
  missed(nowMs: number): boolean {
    if (Object.values(this.worst).some((late) => late > 0)) return true
    return this.tokens < this.round.outputTokens && nowMs > this.dueMs(this.tokens + 1)
  }

  /** `complete`: all tokens that will ever come have come, as promised. Else no open stage attains. */
  verdict(complete: boolean): { attained: boolean; attainedEvery10: boolean; stages: StageVerdict[] } {
    const stages = this.expectedStages().map(({ stage, last }): StageVerdict => {
      const worst = this.worst[stage]
      const there = worst !== undefined && (complete || this.tokens >= last)
      return { stage, attained: there && worst <= 0, worstLateMs: worst ?? null }
    })
    return {
      attained: complete && stages.every((stage) => stage.attained),
      attainedEvery10: complete && this.tokens > 0 && !this.lateEvery10 && this.lastLateMs <= 0,
      stages,
    }
  }

  private expectedStages(): { stage: StageName; last: number }[] {
    const { outputTokens, thinkingTokens } = this.round
    const stages: { stage: StageName; last: number }[] = [{ stage: "prefill", last: 1 }]
    if (thinkingTokens > 1) stages.push({ stage: "thinking", last: thinkingTokens })
    if (outputTokens > Math.max(1, thinkingTokens)) stages.push({ stage: "answer", last: outputTokens })
    return stages
  }
}
