/** Where the time of one request went: each µs since its arrival is in one part, and a token that is late finds its cause in
 * them. Written when something happens to the request itself; what happened to the engine meanwhile is on its clock. */
import type {
  Account,
  Decision,
  DemoteBound,
  DemoteReason,
  Miss,
  MissCause,
  StageName,
  TimePart,
} from "./protocol.ts"

/** In the order of all lists of parts. */
export const TIME_PARTS = [
  ...(["before", "queue", "prefill", "decode", "others"] as const),
  ...(["recompute", "refusedDrafts", "slow", "failed", "server", "engine"] as const),
] as const satisfies readonly TimePart[]

const [BEFORE, QUEUE, PREFILL, DECODE, OTHERS, RECOMPUTE, REFUSED, SLOW, FAILED, SERVER, ENGINE] = [
  ...([0, 1, 2, 3, 4] as const),
  ...([5, 6, 7, 8, 9, 10] as const),
] as const

/** Of more decisions than this the middle ones are dropped: a request may be turned down and come back very often. */
const MOST_DECISIONS = 16

/** What time it is, and how much of it since the start no request is to blame for, µs. */
export interface EngineClock {
  nowUs: number
  /** Of steps beyond what was predicted, less what others took less. */
  slowUs: number
  failedUs: number
  serverUs: number
}

/** What one step, or a part of one, was to a request. Times in µs. */
export interface StepShare {
  serverUs: number
  slowUs: number
  /** What was predicted for the step's work. */
  workUs: number
  /** Of that, what the request would have taken alone, and how much of it for drafts that were refused. */
  ownUs: number
  refusedUs: number
  /** Share of its tokens that it had computed before. */
  recomputed: number
}

/** A late token, as it is judged. */
export interface LateToken {
  /** 1: its first token. */
  token: number
  stage: StageName
  lateUs: number
  /** By TPOT alone; negative: only the longest gap asked for it. */
  paceLateUs: number
  /** Tokens of its stage before it. */
  stageTokens: number
  tpotUs: number
}

export class TimeAccount {
  readonly #arrivalUs: number
  readonly #clock: EngineClock
  readonly #parts = TIME_PARTS.map(() => 0)
  #toFirst: number[] | null = null
  /** Up to its last token, where a longest gap was asked for. */
  readonly #toLast: number[] | null
  /** Accounted for up to here, and the engine's clock then. */
  #atUs: number
  #slowUs: number
  #failedUs: number
  #serverUs: number
  /** It may not run yet. */
  #held: boolean
  #begun = false
  /** Tokens of it that were in place when it lost them; 0: it has what it had. */
  #lost = 0
  readonly #decisions: Decision[] = []
  #miss: Miss | null = null
  #tpotUs = 0
  #gapLate = false
  #answeringUs: number | null = null

  /** Opened now. `held`: it waits for its grammar. `gaps`: a longest gap is asked for. */
  constructor(arrivalUs: number, clock: EngineClock, { held = false, gaps = false } = {}) {
    this.#arrivalUs = arrivalUs
    this.#clock = clock
    this.#atUs = clock.nowUs
    this.#slowUs = clock.slowUs
    this.#failedUs = clock.failedUs
    this.#serverUs = clock.serverUs
    this.#held = held
    this.#toLast = gaps ? this.#parts.slice() : null
    this.#parts[BEFORE] = clock.nowUs - arrivalUs
  }

  /** Up to `untilUs`, when the clock was this one, it was in no step. */
  waited(untilUs: number, clock = this.#clock): void {
    const parts = this.#parts
    let us = untilUs - this.#atUs
    if (us > 0) {
      const slowUs = Math.min(us, clock.slowUs - this.#slowUs)
      us -= slowUs
      const failedUs = Math.min(us, clock.failedUs - this.#failedUs)
      us -= failedUs
      const serverUs = Math.min(us, clock.serverUs - this.#serverUs)
      us -= serverUs
      parts[SLOW]! += slowUs
      parts[FAILED]! += failedUs
      parts[SERVER]! += serverUs
    }
    // What ended before it came here ended before now.
    parts[us < 0 || this.#held ? BEFORE : this.#waitsIn]! += us
    this.#mark(untilUs, clock)
  }

  /** A step that it was in has ended now: all since the last mark is its. */
  stepped(share: StepShare, decodes: boolean): void {
    const { serverUs, slowUs, workUs, ownUs, refusedUs, recomputed } = share
    const parts = this.#parts
    this.#begun = true
    this.#held = false
    parts[SERVER]! += serverUs
    parts[SLOW]! += slowUs
    const againUs = recomputed > 0 ? Math.round(recomputed * workUs) : 0
    const newUs = Math.min(ownUs, workUs - againUs)
    parts[RECOMPUTE]! += againUs
    parts[OTHERS]! += workUs - againUs - newUs
    const forNothingUs = Math.min(refusedUs, newUs)
    parts[REFUSED]! += forNothingUs
    parts[decodes ? DECODE : PREFILL]! += newUs - forNothingUs
    this.#mark(this.#clock.nowUs, this.#clock)
  }

  /** Until now an engine had it that does not say what it did. */
  wasElsewhere(): void {
    const { nowUs } = this.#clock
    this.#parts[ENGINE]! += nowUs - this.#atUs
    this.#mark(nowUs, this.#clock)
  }

  /** Its grammar is compiled. */
  ready(): void {
    if (!this.#held) return
    this.waited(this.#clock.nowUs)
    this.#held = false
  }

  /** It loses the KV of so many tokens. */
  loses(tokens: number): void {
    this.#decided("preempted")
    if (tokens > this.#lost) this.#lost = tokens
  }
  /** Tokens below are computed anew. */
  get lostTokens(): number {
    return this.#lost
  }
  /** So many tokens are in place. */
  has(tokens: number): void {
    if (tokens >= this.#lost) this.#lost = 0
  }
  /** Accounted for up to here, absolute µs. */
  get atUs(): number {
    return this.#atUs
  }

  promised(): void {
    this.#decided("promised")
  }
  demoted(reason: DemoteReason, bound: DemoteBound): void {
    this.#decided("turnedDown", { reason, bound })
  }
  promoted(): void {
    this.#decided("cameBack")
  }

  /** A token came out at the last mark. */
  produced(first: boolean): void {
    if (first) this.#toFirst = this.#parts.slice()
    if (this.#toLast === null) return
    for (let i = 0; i < this.#parts.length; i++) this.#toLast[i] = this.#parts[i]!
  }

  /** Its thoughts ended before the token that came out now. */
  answers(): void {
    this.#answeringUs = this.#clock.nowUs - this.#arrivalUs
  }

  /** Likewise, and it was late. Before `produced`. */
  late(late: LateToken): void {
    const { token, stage, lateUs, paceLateUs, stageTokens, tpotUs } = late
    const objective = token === 1 ? "ttft" : paceLateUs > 0 ? "tpot" : "maxGap"
    if (objective === "tpot")
      this.#tpotUs = Math.max(this.#tpotUs, tpotUs + paceLateUs / Math.max(1, stageTokens))
    this.#gapLate ||= objective === "maxGap"
    if (this.#miss !== null) return
    const from = objective === "ttft" ? null : objective === "tpot" ? this.#toFirst : this.#toLast
    const parts = this.#parts.map((us, i) => us - (from === null ? 0 : from[i]!))
    this.#miss = { token, stage, objective, lateUs, parts, ...this.#causeOf(parts) }
  }

  /** After its last mark. How long its first token took, and its longest gap. */
  closed(ttftUs: number, gapUs: number): Account {
    const needs = {
      ttftUs: this.#miss?.objective === "ttft" ? ttftUs : 0,
      tpotUs: Math.ceil(this.#tpotUs),
      maxGapUs: this.#gapLate ? gapUs : 0,
    }
    const [parts, decisions] = [this.#parts.slice(), this.#decisions.slice()]
    const [toFirst, miss, answeringUs] = [this.#toFirst, this.#miss, this.#answeringUs]
    return { parts, toFirst, decisions, miss, answeringUs, needs }
  }

  /** What it was turned down for comes first: the rest follows from that. That it was too late even with the engine to itself
   * follows from what came before. */
  #causeOf(parts: readonly number[]): Pick<Miss, "cause" | "bound"> {
    const { reason, bound } = this.#turnedDown ?? {}
    if (reason === "revoked") return { cause: "revoked", bound: bound ?? null }
    if (reason === "wontFit" && bound !== "alone") return { cause: "turnedDown", bound: bound ?? null }
    return { cause: largestOf(parts), bound: null }
  }

  /** It is in the best-effort tier since then. */
  get #turnedDown(): Decision | undefined {
    return this.#decisions.findLast(({ what }) => what === "turnedDown" || what === "cameBack")
  }

  #decided(what: Decision["what"], why: Pick<Decision, "reason" | "bound"> = {}): void {
    if (this.#decisions.length >= MOST_DECISIONS) this.#decisions.splice(MOST_DECISIONS / 2, 1)
    this.#decisions.push({ afterUs: this.#clock.nowUs - this.#arrivalUs, what, ...why })
  }

  get #waitsIn(): number {
    if (!this.#begun) return QUEUE
    return this.#lost > 0 ? RECOMPUTE : OTHERS
  }

  #mark(atUs: number, { slowUs, failedUs, serverUs }: EngineClock): void {
    this.#atUs = atUs
    this.#slowUs = slowUs
    this.#failedUs = failedUs
    this.#serverUs = serverUs
  }
}

const BLAMED = [BEFORE, QUEUE, OTHERS, RECOMPUTE, REFUSED, SLOW, FAILED, SERVER, ENGINE] as const

/** What took most of the time; what it took itself counts together. */
function largestOf(parts: readonly number[]): MissCause {
  let most = parts[PREFILL]! + parts[DECODE]!
  let cause: MissCause = "own"
  for (const part of BLAMED) {
    if (parts[part]! <= most) continue
    most = parts[part]!
    cause = TIME_PARTS[part]
  }
  return cause
}
