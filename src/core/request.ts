/** One live request: what it still owes, when its next token is due, and how each of its stages went. */
import { assert } from "./assert.ts"
import type {
  BatchItem,
  Outcome,
  Progress,
  RequestId,
  RequestSpec,
  StageName,
  StageOutcome,
  Tier,
} from "./protocol.ts"
import type { TimeAccount } from "./time-account.ts"

/** What `foresee` changes. */
type Real = Pick<LiveRequest, "computed" | "output" | "dueUs" | "paceDueUs" | "firstTokenUs" | "lastTokenUs">

export class LiveRequest {
  readonly id: RequestId
  readonly spec: RequestSpec
  readonly tenant: number
  /** Chain hashes of its full KV blocks: the prompt's, then those that its output filled. */
  readonly prefix: number[]
  readonly arrivalUs: number
  /** Deadline of the first token, absolute. */
  readonly deadlineUs: number
  /** Order of arrival at this replica: breaks ties, so that equal inputs give equal schedules. */
  readonly order: number

  /** Where it is served now. */
  tier: Tier
  /** In the set whose SLOs the planner undertakes to keep. */
  admitted = false
  /** Tokens whose KV is in place. */
  computed = 0
  /** Tokens produced. */
  output = 0
  thinking: boolean
  /** When its next token is due, absolute; far ahead without an objective (moved.ts). */
  dueUs: number
  /** When it is due by TPOT alone: the longest gap may ask for it sooner, but slack is slack for all later tokens. */
  paceDueUs: number
  /** A token was late: its SLO cannot be met any more. */
  violated = false
  /** An earlier round of its session has missed: the session as a whole cannot attain any more. */
  sessionMissed = false
  preemptions = 0
  cachedTokens = 0
  /** Tokens of it that its tenant was charged for, once computed (learn/tenants.ts). */
  paidTokens = 0
  /** Time of the steps that its prompt was in, µs, and whether they had nothing else. */
  prefillUs = 0
  prefillAlone = true
  /** Leading blocks of its prompt that some sequence holds, and the state of the KV that this was found in
   * (kv/need.ts). */
  matched = 0
  matchedAt = -1
  /** Time of its prefill from one token to another with the engine to itself, when that was asked last (doomed.ts), µs. */
  aloneUs = 0
  aloneFrom = -1
  aloneTo = -1
  /** The same from what it holds, nothing shared. */
  wholeUs = 0
  wholeFrom = -1
  /** Of the last list of work that it was put in (planner/work.ts). */
  listed = 0
  /** Failed alone in a batch this many times. */
  failures = 0
  /** Ended, or given to another replica; while a decision is made also: not to be planned in it (foresight.ts). */
  gone = false
  /** It may not run yet: its grammar is being compiled. */
  waits: boolean
  /** Batches in flight that carry it. */
  inAir = 0
  /** Its state is the one after those (`foresee`); tokens that it has then produced even if all drafts are refused. */
  foreseen = false
  surelyOutput = 0
  /** A token in the air should come too late. It is judged when it has come. */
  foreseenLate = false
  #foreseenComputed = 0
  #real: Real | null = null
  /** Number of the last batch that it was put in. */
  batch = 0
  startedUs = -1
  firstTokenUs = -1
  lastTokenUs = -1
  longestGapUs = 0
  /** Where its time goes; null of one that is only asked about. Plans that are made ahead leave it as it is. */
  account: TimeAccount | null = null

  #stages: StageOutcome[] = []
  #stage: StageOutcome
  #lateEvery10 = false
  #lastLate = false

  /** `arrivalUs` absolute; `ttftUs` after it. */
  constructor(spec: RequestSpec, arrivalUs: number, ttftUs: number, order: number) {
    this.id = spec.id
    this.spec = spec
    this.tenant = spec.tenant ?? 0
    this.prefix = spec.prefix.slice()
    this.arrivalUs = arrivalUs
    this.order = order
    this.deadlineUs = arrivalUs + ttftUs
    this.dueUs = this.deadlineUs
    this.paceDueUs = this.deadlineUs
    this.tier = spec.tier
    this.thinking = spec.thinking
    this.waits = spec.waitsForGrammar ?? false
    this.#stage = { stage: "prefill", attained: true, worstLateUs: -Infinity, tokens: spec.promptTokens }
  }

  /** Tokens that exist: prompt and output. */
  get known(): number {
    return this.spec.promptTokens + this.output
  }
  /** Known tokens whose KV is not in place: all that scheduling is about (no phases). */
  get owed(): number {
    return this.known - this.computed
  }
  /** Output rows of `tokens` tokens that are computed next; `samples`: they reach the last known one. A prompt whose rows were all
   * read once is computed again, when it was preempted, like any other. */
  rowsOf(tokens: number, samples: boolean): number {
    if (this.spec.allRows && this.output === 0) return tokens
    return samples ? 1 : 0
  }
  /** One known token short of its next: a decode. A preempted request owes more and is a prefill again. */
  get decoding(): boolean {
    return this.output > 0 && this.computed === this.known - 1
  }
  /** Time per output token of the phase it is in, as plans must have it, µs: a longest gap below the TPOT is the pace. */
  get tpotUs(): number {
    return Math.min(this.#paceUs, this.spec.slo.maxGapUs)
  }
  /** From when its decodes to come are one `tpotUs` each: the next one is due at the end of the first. */
  get streamStartUs(): number {
    const { maxGapUs } = this.spec.slo
    // By its TPOT alone it would be ahead, and ask for nothing that the gap asks for.
    return maxGapUs < this.#paceUs ? this.dueUs - maxGapUs : this.paceDueUs - this.#paceUs
  }

  /** `count` tokens came out at `nowUs`; those from index `answeringFrom` on (−1: none) belong to the answer.
   * Calls `stageDone` for every stage that this ended. Returns how late the last one was (negative = early). */
  emit(
    count: number,
    answeringFrom: number,
    nowUs: number,
    stageDone: (stage: StageOutcome, id: RequestId) => void,
  ): number {
    assert(
      count > 0 && this.output + count <= this.spec.maxOutputTokens,
      "more tokens than the request may produce",
    )
    let late = 0
    for (let i = 0; i < count; i++) {
      if (i === answeringFrom && this.thinking) this.#startAnswer(stageDone)
      late = nowUs - this.dueUs
      this.#judge(late)
      if (this.output > 0) this.longestGapUs = Math.max(this.longestGapUs, nowUs - this.lastTokenUs)
      this.#produced(nowUs)
      this.account?.produced(this.output === 1)
      if (this.output === 1) {
        this.#endStage(stageDone)
        this.#startStage(this.thinking ? "thinking" : "answer")
      }
      this.#stage.tokens++
    }
    return late
  }

  /** Plan as if this item of it had landed at `atUs`, all its drafts accepted: nothing is judged. Its pace counts the sure
   * token alone. Until `recall`. */
  foresee({ position, tokens, sample, draft }: BatchItem, atUs: number, keepsKv = true): void {
    if (!this.foreseen) this.#remember()
    const { maxOutputTokens } = this.spec
    if (sample) this.surelyOutput++
    if (sample && this.output < maxOutputTokens) {
      if (atUs > this.dueUs) this.foreseenLate = true
      this.#produced(atUs)
      this.output = Math.min(maxOutputTokens, this.output + draft)
    }
    if (keepsKv) this.computed = Math.min(this.known - 1, Math.min(this.computed, position) + tokens + draft)
    this.#foreseenComputed = this.computed
  }

  /** As it is again, but for KV that was taken from it meanwhile. */
  recall(): void {
    const real = this.#real!
    if (this.computed === this.#foreseenComputed) this.computed = real.computed
    this.output = real.output
    this.dueUs = real.dueUs
    this.paceDueUs = real.paceDueUs
    this.firstTokenUs = real.firstTokenUs
    this.lastTokenUs = real.lastTokenUs
    this.foreseen = false
    this.foreseenLate = false
  }

  /** What another replica needs to go on with it. */
  get progress(): Progress {
    const { arrivalUs, deadlineUs, dueUs, paceDueUs, output, thinking, tier, admitted, violated } = this
    const { preemptions, cachedTokens, startedUs, firstTokenUs, lastTokenUs, longestGapUs } = this
    return {
      ...{ arrivalUs, deadlineUs, dueUs, paceDueUs, output, thinking, tier, admitted, violated },
      ...{ preemptions, cachedTokens, startedUs, firstTokenUs, lastTokenUs, longestGapUs },
      prefix: this.prefix.slice(),
      stages: [...this.#stages, { ...this.#stage }],
      lateEvery10: this.#lateEvery10,
      lastLate: this.#lastLate,
    }
  }

  /** Go on where another replica stopped; `arrivalUs` and the deadline were given to the constructor. */
  resume(progress: Progress): void {
    const { arrivalUs: _arrival, deadlineUs: _deadline, stopped: _stopped, ...on } = progress
    const { stages, lateEvery10, lastLate, ...rest } = on
    Object.assign(this, rest, { prefix: progress.prefix.slice() })
    this.#stages = stages.slice(0, -1)
    this.#stage = { ...stages[stages.length - 1]! }
    this.#lateEvery10 = lateEvery10
    this.#lastLate = lastLate
  }

  outcome(nowUs: number, attainable: boolean): Outcome {
    const stages = this.output > 0 ? [...this.#stages, this.#stage] : []
    return {
      app: this.spec.app,
      arrivalUs: this.arrivalUs,
      startedUs: this.startedUs,
      firstTokenUs: this.firstTokenUs,
      finishedUs: nowUs,
      promptTokens: this.spec.promptTokens,
      cachedTokens: this.cachedTokens,
      outputTokens: this.output,
      maxGapUs: this.longestGapUs,
      ttftUs: this.deadlineUs - this.arrivalUs,
      tier: this.spec.tier,
      servedTier: this.tier,
      preemptions: this.preemptions,
      attained: attainable && !this.violated,
      attainedEvery10: attainable && !this.#lateEvery10 && !this.#lastLate,
      stages,
      ...(this.account !== null && {
        account: this.account.closed(this.firstTokenUs - this.arrivalUs, this.longestGapUs),
      }),
    }
  }

  /** The stage in progress, closed: for the effect when the request ends. */
  get stage(): StageOutcome {
    return this.#stage
  }

  get #hasTtft(): boolean {
    const { ttftUs, ttftSlowdown } = this.spec.slo
    return ttftSlowdown > 0 || ttftUs < Infinity
  }

  #remember(): void {
    const { computed, output, dueUs, paceDueUs, firstTokenUs, lastTokenUs } = this
    this.#real = { computed, output, dueUs, paceDueUs, firstTokenUs, lastTokenUs }
    this.surelyOutput = output
    this.foreseen = true
  }

  /** A token came out at `nowUs`: when the next one is due. */
  #produced(nowUs: number): void {
    if (++this.output === 1) {
      this.firstTokenUs = nowUs
      // An early first token does not start the TPOT clock: the time saved is slack (docs/design.md, Objectives). Without
      // a TTFT there is nothing to save, and slack without end would keep every TPOT.
      this.paceDueUs = this.#hasTtft ? Math.max(this.deadlineUs, nowUs) : nowUs
    }
    this.lastTokenUs = nowUs
    this.paceDueUs += this.#paceUs
    this.#setDue()
  }

  get #paceUs(): number {
    return this.thinking ? this.spec.slo.thinkingTpotUs : this.spec.slo.tpotUs
  }

  /** After its first token. */
  #setDue(): void {
    this.dueUs = Math.min(this.paceDueUs, this.lastTokenUs + this.spec.slo.maxGapUs)
  }

  #judge(late: number): void {
    const stage = this.#stage
    if (late > stage.worstLateUs) stage.worstLateUs = late
    this.#lastLate = late > 0
    if (late <= 0) return
    stage.attained = false
    this.violated = true
    if ((this.output + 1) % 10 === 0 || this.output === 0) this.#lateEvery10 = true
    if (this.account !== null) this.#tellLate(late)
  }

  #tellLate(lateUs: number): void {
    const { stage, tokens: stageTokens } = this.#stage
    const paceLateUs = lateUs + this.dueUs - this.paceDueUs
    const late = { token: this.output + 1, stage, lateUs, paceLateUs, stageTokens, tpotUs: this.#paceUs }
    this.account!.late(late)
  }

  #startAnswer(stageDone: (stage: StageOutcome, id: RequestId) => void): void {
    this.thinking = false
    if (this.output === 0) return
    // The due time was set while the phase was unknown; the first answer token is judged by the answer's TPOT.
    this.paceDueUs += this.spec.slo.tpotUs - this.spec.slo.thinkingTpotUs
    this.#setDue()
    this.account?.answers()
    this.#endStage(stageDone)
    this.#startStage("answer")
  }

  #startStage(stage: StageName): void {
    this.#stage = { stage, attained: true, worstLateUs: -Infinity, tokens: 0 }
  }

  #endStage(stageDone: (stage: StageOutcome, id: RequestId) => void): void {
    this.#stages.push(this.#stage)
    stageDone(this.#stage, this.spec.id)
  }
}
