/** Replays a plan against a server, open loop: no request waits for another, latencies count from the scheduled
 * send, and the generator says when it could not keep the schedule itself. */
import { Random } from "../random.ts"
import { type RoundSlo, roundSlo, type SloClasses, type ZeroLoad } from "./classes.ts"
import { type CompletionEnd, type Connections, complete, connect, type Target } from "./client.ts"
import { Judge, type StageVerdict } from "./judge.ts"
import type { Plan, PlannedRequest } from "./plan.ts"
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
  /** Instead of the nonce for what the plan says is shared: prompts then begin as those of every run with the same, and a
   * server may know the beginnings from before. */
  sharedNonce?: string
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
  /** Requests whose turn had not come when the replay was interrupted: they have no records. */
  neverBegun: number
  /** It was stopped before its end: what was under way then has no judgement. */
  interrupted: boolean
}

export function replay(plan: Plan, options: ReplayOptions): Promise<ReplayResult> {
  return new Replay(plan, options).run()
}

const TICK_MS = 250

class Replay {
  readonly #plan: Plan
  readonly #options: ReplayOptions
  /** Of each request's rounds: everything that can be wrong with the classes is found before anything is sent. */
  readonly #slos: RoundSlo[][]
  readonly #connections: Connections
  readonly #giveUp = new AbortController()
  readonly #gate: Gate
  readonly #records: RoundRecord[] = []
  readonly #sendLagsMs: number[] = []
  /** Rounds in flight, by request. */
  readonly #live = new Map<number, { judge: Judge; scheduledMs: number }>()
  /** Requests that may still attain. */
  readonly #undecided: Set<number>
  readonly #progress: Progress
  #startMs = 0

  constructor(plan: Plan, options: ReplayOptions) {
    this.#plan = plan
    this.#options = options
    this.#slos = plan.requests.map((request) => slosOf(request, options))
    this.#connections = connect(options.target.url)
    this.#gate = new Gate(options.maxConcurrency ?? Number.POSITIVE_INFINITY)
    this.#undecided = new Set(plan.requests.keys())
    this.#progress = { elapsedMs: 0, sent: 0, finished: 0, attained: 0, total: plan.requests.length }
    options.signal?.addEventListener("abort", () => this.#giveUp.abort())
  }

  async run(): Promise<ReplayResult> {
    this.#startMs = performance.now()
    const ticker = setInterval(() => this.#tick(), TICK_MS)
    const begun: Promise<void>[] = []
    try {
      for (const [index, request] of this.#plan.requests.entries()) {
        await sleepUntil(request.atMs, this.#nowMs, this.#giveUp.signal)
        if (this.#options.signal?.aborted) break
        begun.push(this.#request(index))
      }
      await Promise.all(begun)
    } finally {
      clearInterval(ticker)
      this.#connections.agent.destroy()
    }
    this.#report()
    return {
      records: this.#records,
      elapsedMs: this.#nowMs(),
      sendLagsMs: this.#sendLagsMs,
      neverBegun: this.#plan.requests.length - begun.length,
      interrupted: this.#options.signal?.aborted === true,
    }
  }

  readonly #nowMs = () => performance.now() - this.#startMs

  /** All rounds of one request, one after the other. */
  async #request(index: number): Promise<void> {
    const request = this.#plan.requests[index]!
    const history: number[] = []
    let scheduledMs = request.atMs
    let attained = true
    let failed = false
    for (const [number, round] of request.rounds.entries()) {
      if (number > 0 && !failed) {
        scheduledMs = this.#nowMs() + round.delayMs
        await sleepUntil(scheduledMs, this.#nowMs, this.#giveUp.signal)
      }
      history.push(...promptOf(request, index, number, this.#options))
      const slo = this.#slos[index]![number]!
      const record = emptyRecord(request, index, number, history.length, slo, scheduledMs)
      this.#records.push(record)
      if (failed || this.#giveUp.signal.aborted) record.end = "notSent"
      else await this.#send(record, history)
      attained &&= record.attained
      if (!record.attained) this.#undecided.delete(index)
      failed ||= record.end !== "ok"
      history.push(...tokensOf(this.#options, index, number, "output", round.outputTokens))
    }
    this.#undecided.delete(index)
    this.#progress.finished++
    if (attained) this.#progress.attained++
  }

  /** One round: sends it, times its tokens, and judges it. */
  async #send(record: RoundRecord, prompt: number[]): Promise<void> {
    const { target, sendClass, nonce, timeoutMs } = this.#options
    const { scheduledMs, outputTokens, thinkingTokens, slo } = record
    const openedMs = await this.#gate.enter()
    this.#sendLagsMs.push(this.#nowMs() - Math.max(scheduledMs, openedMs))
    const judge = new Judge(record)
    this.#live.set(record.request, { judge, scheduledMs })
    this.#progress.sent++
    record.sentMs = this.#nowMs()
    const result = await complete(
      this.#connections,
      target,
      {
        prompt,
        outputTokens,
        thinkingTokens,
        slo,
        class: sendClass ? record.class : null,
        session: record.session === null ? null : `${nonce}-${record.session}`,
      },
      {
        timeoutMs,
        signal: this.#giveUp.signal,
        onTokens: (count) => {
          const atMs = this.#nowMs() - scheduledMs
          for (let i = 0; i < count; i++) record.tokenTimesMs.push(atMs)
          judge.take(atMs, count)
        },
      },
    )
    this.#gate.leave(this.#nowMs)
    this.#live.delete(record.request)
    Object.assign(record, result, { endMs: this.#nowMs() })
    Object.assign(record, judge.verdict(isComplete(record, this.#options)))
  }

  #tick(): void {
    this.#report()
    if (this.#options.stopWhenDecided !== true || this.#nowMs() < this.#plan.header.durationMs) return
    for (const [index, { judge, scheduledMs }] of this.#live) {
      if (judge.missed(this.#nowMs() - scheduledMs)) this.#undecided.delete(index)
    }
    if (this.#undecided.size === 0) this.#giveUp.abort()
  }

  #report(): void {
    this.#options.onProgress?.({ ...this.#progress, elapsedMs: this.#nowMs() })
  }
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
  promptTokens: number,
  slo: RoundSlo,
  scheduledMs: number,
): RoundRecord {
  const round = request.rounds[number]!
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

type Words = Pick<ReplayOptions, "nonce" | "sharedNonce" | "tokenRange">

/** What a round adds to the prompt: shared blocks first, where the plan has some, then tokens of its own. */
export function promptOf(request: PlannedRequest, index: number, number: number, options: Words): number[] {
  const { nonce, sharedNonce = nonce, tokenRange } = options
  const { promptTokens } = request.rounds[number]!
  const shared =
    number === 0 && request.prefix ? prefixTokens(request.prefix, promptTokens, sharedNonce, tokenRange) : []
  return [...shared, ...tokensOf(options, index, number, "prompt", promptTokens - shared.length)]
}

/** Token ids that no other request shares; the same for the same nonce, request and round. */
function tokensOf(options: Words, request: number, round: number, part: string, count: number): number[] {
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
