/** Replays a plan against a server, open loop: nobody waits for anybody, latencies count from the scheduled
 * send, and the generator says when it could not keep the schedule itself. */

import { Random } from "../random.ts"
import { type RoundSlo, roundSlo, type SloClasses, type ZeroLoad } from "./classes.ts"
import { type CompletionEnd, complete, connect, type Target } from "./client.ts"
import { Judge, type StageVerdict } from "./judge.ts"
import type { Plan, PlannedRequest, PlannedRound } from "./plan.ts"
import { prefixTokens } from "./prefix.ts"

/** How one round went. Times are ms; `tokenTimesMs` counts from the scheduled send, one entry a token. */
export interface RoundRecord {
  /** Index of the request (session) in the plan. */
  request: number
  app: string
  class: string
  session: string | null
  round: number
  /** Whole prompt, history included. */
  promptTokens: number
  outputTokens: number
  thinkingTokens: number
  slo: RoundSlo
  /** Since the start of the replay. */
  scheduledMs: number
  sentMs: number
  endMs: number
  /** `notSent`: an earlier round of the session failed. */
  end: CompletionEnd | "notSent"
  status: number
  message: string
  tokenTimesMs: number[]
  usageTokens: number | null
  untimedTokens: number
  attained: boolean
  attainedEvery10: boolean
  stages: StageVerdict[]
}

export interface ReplayOptions {
  target: Target
  classes: SloClasses
  zeroLoad?: ZeroLoad | undefined
  /** Prompts are drawn from token ids in [from, to). */
  tokenRange: { from: number; to: number }
  /** Makes this run's prompts unlike those of any other run, so that no cache of an earlier run helps. */
  nonce: string
  /** Name the class to the server too: its objectives are sent in any case. */
  sendClass: boolean
  /** Requests in flight at once; more wait in the generator, on their own time. */
  maxConcurrency?: number | undefined
  timeoutMs: number
  /** After the last arrival: give up what is left as soon as every request left has already missed. */
  stopWhenDecided?: boolean
  onProgress?: (progress: Progress) => void
  signal?: AbortSignal
}

export interface Progress {
  elapsedMs: number
  sent: number
  finished: number
  attained: number
  total: number
}

export interface ReplayResult {
  records: RoundRecord[]
  /** From the start to the last end. */
  elapsedMs: number
  /** Delay of each send behind its schedule. Waiting for --max-concurrency is not in it. */
  sendLagsMs: number[]
}

interface Live {
  judge: Judge
  scheduledMs: number
}

export async function replay(plan: Plan, options: ReplayOptions): Promise<ReplayResult> {
  // Everything that can be wrong with the classes is found before anything is sent.
  const slos = plan.requests.map((request) => slosOf(request, options))
  const connections = connect(options.target.url)
  const giveUp = new AbortController()
  options.signal?.addEventListener("abort", () => giveUp.abort())
  const records: RoundRecord[] = []
  const sendLagsMs: number[] = []
  const live = new Map<number, Live>()
  const undecided = new Set<number>(plan.requests.keys())
  const progress: Progress = { elapsedMs: 0, sent: 0, finished: 0, attained: 0, total: plan.requests.length }
  const gate = new Gate(options.maxConcurrency ?? Number.POSITIVE_INFINITY)
  const startMs = performance.now()
  const nowMs = () => performance.now() - startMs

  const runRequest = async (index: number): Promise<void> => {
    const request = plan.requests[index]!
    const history: number[] = []
    let scheduledMs = request.atMs
    let attained = true
    let failed = false
    for (const [number, round] of request.rounds.entries()) {
      if (number > 0 && !failed) {
        scheduledMs = nowMs() + round.delayMs
        await sleepUntil(scheduledMs, nowMs)
      }
      history.push(...promptOf(request, index, number, options))
      const record = emptyRecord(
        request,
        index,
        number,
        round,
        history.length,
        slos[index]![number]!,
        scheduledMs,
      )
      records.push(record)
      if (failed || giveUp.signal.aborted) {
        record.end = "notSent"
      } else {
        const dueMs = await gate.enter()
        sendLagsMs.push(nowMs() - Math.max(scheduledMs, dueMs))
        const judge = new Judge(record)
        live.set(index, { judge, scheduledMs })
        progress.sent++
        record.sentMs = nowMs()
        const result = await complete(
          connections,
          options.target,
          {
            prompt: history,
            outputTokens: round.outputTokens,
            thinkingTokens: round.thinkingTokens,
            slo: record.slo,
            class: options.sendClass ? round.class : null,
            session: request.session === null ? null : `${options.nonce}-${request.session}`,
          },
          {
            timeoutMs: options.timeoutMs,
            signal: giveUp.signal,
            onTokens: (count) => {
              const atMs = nowMs() - scheduledMs
              for (let i = 0; i < count; i++) record.tokenTimesMs.push(atMs)
              judge.take(atMs, count)
            },
          },
        )
        gate.leave(nowMs)
        live.delete(index)
        Object.assign(record, result, { endMs: nowMs() })
        Object.assign(record, judge.verdict(isComplete(record, options)))
      }
      attained &&= record.attained
      if (!record.attained) undecided.delete(index)
      failed ||= record.end !== "ok"
      history.push(...tokensOf(options, index, number, "output", round.outputTokens))
    }
    undecided.delete(index)
    progress.finished++
    if (attained) progress.attained++
  }

  const report = () => options.onProgress?.({ ...progress, elapsedMs: nowMs() })
  const ticker = setInterval(() => {
    report()
    if (options.stopWhenDecided !== true || nowMs() < plan.header.durationMs) return
    for (const [index, { judge, scheduledMs }] of live) {
      if (judge.missed(nowMs() - scheduledMs)) undecided.delete(index)
    }
    if (undecided.size === 0) giveUp.abort()
  }, 250)
  try {
    const running: Promise<void>[] = []
    for (const [index, request] of plan.requests.entries()) {
      await sleepUntil(request.atMs, nowMs, giveUp.signal)
      if (options.signal?.aborted) break
      running.push(runRequest(index))
    }
    await Promise.all(running)
  } finally {
    clearInterval(ticker)
    connections.agent.destroy()
  }
  report()
  return { records, elapsedMs: nowMs(), sendLagsMs }
}

/** The answer is all there: forced lengths must be met where the server was asked to force them. */
function isComplete(record: RoundRecord, options: ReplayOptions): boolean {
  if (record.end !== "ok" || record.tokenTimesMs.length === 0) return false
  return options.target.kind === "openai" || record.tokenTimesMs.length === record.outputTokens
}

function slosOf(request: PlannedRequest, options: ReplayOptions): RoundSlo[] {
  let history = 0
  return request.rounds.map((round) => {
    const slo = roundSlo(round, history + round.promptTokens, options.classes, options.zeroLoad)
    history += round.promptTokens + round.outputTokens
    return slo
  })
}

function emptyRecord(
  request: PlannedRequest,
  index: number,
  number: number,
  round: PlannedRound,
  promptTokens: number,
  slo: RoundSlo,
  scheduledMs: number,
): RoundRecord {
  const record: RoundRecord = {
    request: index,
    app: request.app,
    class: round.class,
    session: request.session,
    round: number,
    promptTokens,
    outputTokens: round.outputTokens,
    thinkingTokens: round.thinkingTokens,
    slo,
    scheduledMs,
    sentMs: Number.NaN,
    endMs: Number.NaN,
    end: "disconnected",
    status: 0,
    message: "",
    tokenTimesMs: [],
    usageTokens: null,
    untimedTokens: 0,
    attained: false,
    attainedEvery10: false,
    stages: [],
  }
  record.stages = new Judge(record).verdict(false).stages
  return record
}

/** What a round adds to the prompt: shared blocks first, where the plan has some, then tokens of its own. */
function promptOf(request: PlannedRequest, index: number, number: number, options: ReplayOptions): number[] {
  const shared =
    number === 0 && request.prefix ? prefixTokens(request.prefix, options.nonce, options.tokenRange) : []
  const own = request.rounds[number]!.promptTokens - shared.length
  return [...shared, ...tokensOf(options, index, number, "prompt", own)]
}

/** Token ids that no other request shares; the same for the same nonce, request and round. */
function tokensOf(
  options: ReplayOptions,
  request: number,
  round: number,
  part: string,
  count: number,
): number[] {
  const random = new Random(options.nonce, request, round, part)
  const { from, to } = options.tokenRange
  return Array.from({ length: count }, () => random.integer(from, to))
}

async function sleepUntil(atMs: number, nowMs: () => number, signal?: AbortSignal): Promise<void> {
  for (;;) {
    const left = atMs - nowMs()
    if (left <= 0 || signal?.aborted) return
    await new Promise<void>((resolve) => {
      // Long sleeps are cut so that an abort is noticed; Node rounds timers down, hence the loop.
      setTimeout(resolve, Math.min(left, 1000))
    })
  }
}

/** At most `limit` inside at once; first come, first in. */
class Gate {
  private inside = 0
  private readonly limit: number
  private readonly waiting: ((openedMs: number) => void)[] = []

  constructor(limit: number) {
    this.limit = limit
  }

  /** Resolves with the time from which the caller could go (-Infinity: it never had to wait). */
  async enter(): Promise<number> {
    if (this.inside < this.limit) {
      this.inside++
      return Number.NEGATIVE_INFINITY
    }
    return new Promise((resolve) => this.waiting.push(resolve))
  }

  leave(nowMs: () => number): void {
    const next = this.waiting.shift()
    if (next === undefined) this.inside--
    else next(nowMs())
  }
}
