/** The whole vocabulary of scheduling: what a replica is told (events), what it answers (effects), and the
 * nouns between. Counts and times only: no token ids, no text, no clock. All times are integer-valued
 * microseconds on one clock chosen by the driver (`nowUs`); all sizes are tokens. */
import type { CostModel } from "./cost-model.ts"

export type RequestId = number

/** Latency objective of one request (docs/design.md, Objectives). Relative times; `Infinity` means "no objective". */
export interface Slo {
  /** First token due this long after arrival. */
  ttftUs: number
  /** Instead of `ttftUs` when > 0: first token due after this many zero-load prefill times. */
  ttftSlowdown: number
  /** Time per output token of the answer. */
  tpotUs: number
  /** Time per output token while thinking; used only while `RequestSpec.thinking`. */
  thinkingTpotUs: number
  /** Longest time between two tokens: TPOT alone lets a stream that is ahead pause for all of its slack. */
  maxGapUs: number
}

/** `slo`: the planner tries to keep every objective. `bestEffort`: served with what is left over. */
export type Tier = "slo" | "bestEffort"

/** What a replica must know of a request when it arrives. Immutable. One round of a tool session is one
 * request; rounds share `session`, so that later rounds find the KV of earlier ones. */
export interface RequestSpec {
  id: RequestId
  /** Index of the app (SLO class): output lengths are learnt per app. 0 ≤ app < ReplicaConfig.apps. */
  app: number
  /** Whose it is: where not all fit, tenants get their shares (docs/design.md, Tenants). A small number, default 0. */
  tenant?: number
  /** Tool session that this round belongs to, or -1. */
  session: number
  /** When it reached the server, if that was before the event was posted (tokenizing takes time). */
  arrivalUs?: number
  promptTokens: number
  /** Most tokens this request may produce (≥ 1); promptTokens + maxOutputTokens ≤ limits.contextTokens, or promptTokens alone where it
   * is 1. */
  maxOutputTokens: number
  /** Chain hash of each full KV block of the prompt, in order; equal hashes mean equal prefixes. */
  prefix: readonly number[]
  slo: Slo
  tier: Tier
  /** What keeping its SLO is worth, against others' 1: it may then take so many times the time from them. */
  worth?: number
  /** Its SLO is promised already: it may not be turned down. */
  firm?: boolean
  /** It runs before all others, by itself: to see whether the engine computes. */
  alone?: boolean
  /** Each token of its prompt has an output row, not the last one alone: its log-probabilities are asked for, or a mean over all. */
  allRows?: boolean
  /** Which adapter of the model (LoRA) it runs with, a number from 1 on; default: none. */
  adapter?: number
  /** Its grammar is still being compiled: it runs from the event `grammarReady` on. Its objectives count from its arrival. */
  waitsForGrammar?: boolean
  /** The decode starts in a thinking phase, whose end only the engine can report (StepResult.answering). */
  thinking: boolean
}

/** What one request got out of one step. */
export interface StepResult {
  id: RequestId
  /** Tokens produced: 0 while the prompt is still being computed; > 1 only with speculation. */
  tokens: number
  /** Tokens that were really drafted, where fewer than the batch asked for: a drafter may have no idea. */
  drafted?: number
  /** The drafter had not come so far yet: the step says nothing of how good its drafts are. */
  behind?: boolean
  /** The request ended with the last of these tokens (end token, stop string). */
  stopped: boolean
  /** Index within `tokens` of the first answer token, or -1 when the phase did not change to answering. */
  answeringFrom: number
  /** Chain hashes of the KV blocks that these tokens filled, continuing `RequestSpec.prefix`: a later prompt that
   * repeats the output (a session's next round) then shares its KV too. Left out: outputs are not shared. */
  prefix?: readonly number[]
  /** Tokens whose KV is in place after the step, where the engine counts others than the core does (position + tokens +
   * accepted drafts). Only where the engine owns its KV (ReplicaConfig.engineOwnsKv). */
  computed?: number
}

export type StepFailure = "kvFull" | "engineError"

/** Everything that can happen to a replica. Simultaneous events are handled in the order of `eventRank`; where the engine owns
 * its KV, in the order in which they happened. */
export type Event =
  /** `progress`: it comes from another replica and goes on where it was. */
  | { type: "arrived"; request: RequestSpec; progress?: Progress }
  /** Also of a request that arrives in the same round, in any order. `failed`: not its client gave it up, but the
   * driver, for lack of an engine. */
  | { type: "cancelled"; id: RequestId; failed?: boolean }
  | { type: "stepDone"; batch: number; durationUs: number; results: readonly StepResult[] }
  | { type: "stepFailed"; batch: number; reason: StepFailure }
  | Ran
  /** KV that the engine dropped by itself, outside of a batch: all that these live requests had (unknown ids are no error),
   * and, with `cached`, all that was kept of ended ones. */
  | { type: "kvLost"; ids: readonly RequestId[]; cached?: boolean }
  /** An engine that owns its KV has room for so many tokens in blocks that no live request holds, by its own count, after all that
   * was told so far. Decisions take no more than that, until its next step or result. `batch`: the last plan that it had scheduled
   * then: those behind it in flight take theirs out of it. Left out: it had scheduled all. */
  | { type: "kvFree"; tokens: number; batch?: number }
  /** The grammar of a request that `waitsForGrammar` is compiled. */
  | { type: "grammarReady"; id: RequestId }
  /** Steps are believed to take this from now on. What was learnt of the last ones holds against it, not against the old model. */
  | { type: "costModel"; cost: CostModel }
  /** Shares of tenants from now on, as ReplicaConfig.tenantWeights. What each was served stays. */
  | { type: "tenantWeights"; weights: readonly number[] }
  | { type: "woke" }
  /** From now on the engine has another plan made in place of one of a step that should last so long, µs, where something has
   * arrived that it does not know of: what arrives then waits for one batch less. */
  | { type: "renews"; fromUs: number }

/** What an engine that owns its KV scheduled, where that is not the plan. It comes before the batch's `stepDone`. Requests that
 * have ended meanwhile may be left out or not: neither is an error. */
export interface Ran {
  type: "ran"
  /** Of a batch in flight: it consists of `items` from now on, and planned requests that are not among them did not run.
   * Without items the batch did not run at all: no `stepDone` follows. A number below 1 is one that the driver made for a
   * batch of the engine's own, without a plan: distinct among those in flight. */
  batch: number
  items: readonly RanItem[]
  /** Of one without items: its evictions were made all the same. Left out: they were not. */
  evicted?: boolean
  /** Live requests whose KV the engine took for it, beyond what the plan evicts. */
  preempted?: readonly RequestId[]
}

/** One request's share of what ran: its known tokens [position, position + tokens), and the tokens drafted beyond them. The
 * engine's `position` counts: it may be higher or lower than planned, where its prefix cache had more or less. */
export type RanItem = Pick<BatchItem, "id" | "position" | "tokens" | "draft">

/** One request's share of a batch. The engine computes known tokens [position, position + tokens). */
export interface BatchItem {
  id: RequestId
  /** Tokens of this request whose KV is in place before this step (0 = start afresh). Of a batch that follows another in
   * flight: if all drafts of that one are accepted. */
  position: number
  /** Known tokens to compute, ≥ 1. */
  tokens: number
  /** This step reaches the last known token, so it yields at least one new token. */
  sample: boolean
  /** How many of these tokens have an output row. Left out: the last one, if it samples. */
  rows?: number
  /** Tokens to draft and verify beyond the sure one (0 = autoregressive). */
  draft: number
  /** Before computing: take the first `tokens` tokens of KV from request `from` (prefix sharing). */
  copy?: { from: RequestId; tokens: number }
}

/** An ended request whose KV is cached gives some of it up. */
export interface KvTrim {
  id: RequestId
  /** What stays, in tokens. */
  tokens: number
}

/** One engine step: exactly what to compute, and whose KV to drop first. */
export interface Batch {
  /** 1, 2, 3 … per replica. */
  number: number
  items: readonly BatchItem[]
  /** Drop the KV of these live requests before computing (they are recomputed later). A request that starts
   * afresh in this very batch (position 0, or `copy`) is not listed, the engine clears it first; but for engines that own their KV. */
  evict: readonly RequestId[]
  /** Forget these ended requests wholly before computing (prefix copies in `items` are done first). */
  release: readonly RequestId[]
  /** Keep only the first tokens of these ended requests' KV, likewise. Left out where nothing is trimmed. */
  trim?: readonly KvTrim[]
  /** Step time expected by the cost model, calibrated, without margin. */
  predictedUs: number
}

export type StageName = "prefill" | "thinking" | "answer"

/** How one stage of a request went. */
export interface StageOutcome {
  stage: StageName
  /** Every token of the stage was on time. */
  attained: boolean
  /** The stage's latest token against its due time (negative = early). */
  worstLateUs: number
  tokens: number
}

/** What the time of a request went into. `before`: until its replica had it and it could run (its prompt was read, its grammar
 * compiled, a gateway held it, another replica had it). `queue`: until its first batch. `prefill`, `decode`: what its steps
 * would have taken with it alone. `others`: the rest of them, and steps without it. `recompute`: from losing its KV until all of
 * that was in place again. `refusedDrafts`: own drafts that were not accepted. `slow`: steps took longer than predicted
 * (negative: shorter). `failed`: steps that failed, and the pauses after them. `server`: between the engine's steps. `engine`:
 * an engine of another kind had it, which does not say what it did. */
export type TimePart =
  | "before"
  | "queue"
  | "prefill"
  | "decode"
  | "others"
  | "recompute"
  | "refusedDrafts"
  | "slow"
  | "failed"
  | "server"
  | "engine"

/** By which bound a request was turned down: what was promised would have been late (`time`) or out of KV (`memory`), it
 * could not be on time even with the engine to itself (`alone`), a plan of a whole set left it out (`plan`), or late requests of
 * a tenant that was served far less came first (`turn`). */
export type DemoteBound = "time" | "memory" | "alone" | "plan" | "turn"

/** Why a token was late: the request was turned down, its promise gave way to others, or what took most of the time before it.
 * `own`: what it took itself. */
export type MissCause = "turnedDown" | "revoked" | "own" | Exclude<TimePart, "prefill" | "decode">

/** The first token of a request that was late. */
export interface Miss {
  /** 1: its first token. */
  token: number
  stage: StageName
  /** Which objective asked for it that soon. */
  objective: "ttft" | "tpot" | "maxGap"
  lateUs: number
  /** What the time before it went into, by TIME_PARTS, µs: since its arrival (`ttft`), its first token (`tpot`), or the token
   * before it (`maxGap`). */
  parts: readonly number[]
  cause: MissCause
  /** By which bound it was turned down, where that is the cause. */
  bound: DemoteBound | null
}

/** What was decided on a request. */
export interface Decision {
  /** After its arrival, µs. */
  afterUs: number
  what: "promised" | "turnedDown" | "cameBack" | "preempted"
  /** Of `turnedDown`. */
  reason?: DemoteReason
  bound?: DemoteBound
}

/** Where the time of a request went. All times are µs. */
export interface Account {
  /** By TIME_PARTS: they add up to its latency. */
  parts: readonly number[]
  /** The same up to its first token; null where that did not come here. */
  toFirst: readonly number[] | null
  /** In order; of very many the first and the last. */
  decisions: readonly Decision[]
  /** null: no token was late here. */
  miss: Miss | null
  /** When its thoughts ended, after its arrival; null: it had none, or they did not end here. */
  answeringUs: number | null
  /** Objectives that would have been kept by what it got; 0: what it asked for was. */
  needs: { ttftUs: number; tpotUs: number; maxGapUs: number }
}

/** How a request went: the single source for responses, metrics, reports and simulation results. */
export interface Outcome {
  app: number
  arrivalUs: number
  /** First time any of its tokens was in a batch; -1 if never. */
  startedUs: number
  /** -1 when no token came out. */
  firstTokenUs: number
  finishedUs: number
  promptTokens: number
  /** Prompt tokens whose KV was shared from an earlier request. */
  cachedTokens: number
  outputTokens: number
  /** Longest time between two tokens, asked for or not; 0 with fewer than two. */
  maxGapUs: number
  /** Deadline of the first token. */
  ttftUs: number
  /** Tier asked for, and the one it ended in. */
  tier: Tier
  servedTier: Tier
  preemptions: number
  /** All stages attained (strict, per token). Cancelled and failed requests never attain. */
  attained: boolean
  /** The paper's laxer check: first token, every 10th and the last. */
  attainedEvery10: boolean
  stages: StageOutcome[]
  /** Where its time went; left out where that is not known. */
  account?: Account
}

/** How far a request has come, for another replica to go on with it: it keeps its arrival, its deadlines and the
 * verdicts so far, so that it is judged once. Times are absolute µs. */
export interface Progress {
  arrivalUs: number
  deadlineUs: number
  dueUs: number
  paceDueUs: number
  /** Tokens produced. */
  output: number
  thinking: boolean
  tier: Tier
  admitted: boolean
  violated: boolean
  preemptions: number
  cachedTokens: number
  /** Chain hashes of its full KV blocks so far. */
  prefix: readonly number[]
  startedUs: number
  firstTokenUs: number
  lastTokenUs: number
  /** Longest time between two tokens so far. */
  longestGapUs: number
  /** Stages that ended, then the one in progress. */
  stages: readonly StageOutcome[]
  lateEvery10: boolean
  lastLate: boolean
  /** Its last token ended it (StepResult.stopped): only its end is to be told. */
  stopped?: boolean
}

export type FinishReason = "stop" | "length" | "cancelled" | "failed"
export type RejectReason = "promptTooLong" | "queueFull" | "shuttingDown" | "engineDown"
export type DemoteReason = "wontFit" | "violated" | "revoked"

/** What a replica wants done. A driver carries effects out in order. */
export type Effect =
  | { type: "run"; batch: Batch }
  /** `count` tokens came out; `lateUs` is the last one against its due time (negative = early). */
  | { type: "token"; id: RequestId; count: number; lateUs: number }
  | { type: "stageDone"; id: RequestId; outcome: StageOutcome }
  | { type: "finished"; id: RequestId; reason: FinishReason; outcome: Outcome }
  /** Its SLO is now promised (first token is out, or firm admission). */
  | { type: "admitted"; id: RequestId }
  | { type: "demoted"; id: RequestId; reason: DemoteReason }
  | { type: "promoted"; id: RequestId }
  | { type: "preempted"; id: RequestId }
  | { type: "rejected"; id: RequestId; reason: RejectReason }
  /** A replica that only prefills is done with it; its KV stays until `Replica.release`. */
  | { type: "handedOff"; id: RequestId; progress: Progress }
  /** Post `woke` at this time if nothing else happened before. */
  | { type: "wake"; atUs: number }

/** The engine's fixed sizes, as the scheduler must know them. */
export interface EngineLimits {
  /** KV capacity of the pool, in tokens. */
  kvTokens: number
  /** Tokens per KV block, the unit of accounting and of prefix sharing. */
  blockTokens: number
  /** Most live requests whose KV can be in place at once. */
  maxSequences: number
  /** Ended requests whose KV can stay as a cache besides, in sequences of their own (a unified pool's cost nothing).
   * Default 0: cached ones take what live ones leave of `maxSequences`. */
  cachedSequences?: number
  /** Most tokens of one batch. */
  maxBatchTokens: number
  /** Most different adapters in one batch; default: any number. */
  maxAdapters?: number
  /** Most tokens (prompt + output) of one request. */
  contextTokens: number
  /** Chunks shorter than this are disproportionately slow; only a prompt's remainder may be shorter. */
  minChunkTokens: number
  /** One forward pass computes sequences of unequal token counts together (else one pass per count). */
  unifiedKv: boolean
}

/** A replica at a glance: for /metrics, the page and the router. */
export interface Snapshot {
  nowUs: number
  waiting: number
  running: number
  bestEffort: number
  kvUsedTokens: number
  kvCachedTokens: number
  kvCapacityTokens: number
  /** Tokens of room that cached KV gave up since the start, without what was not likely to be used again: what was cached
   * before is gone by so much. */
  kvEvictedTokens: number
  batchInFlight: boolean
  /** Prompt tokens still owed by SLO-tier requests. */
  prefillBacklogTokens: number
  /** Time that one more prompt token takes as things are, µs: in the longest batches, beside what decodes now. */
  prefillUsPerToken: number
  /** Actual over predicted step time, learnt: of decode-only batches, batches with prefill, decodes with drafts. */
  calibration: readonly number[]
  /** By app; empty while no request has drafted. */
  speculation: readonly AppSpeculation[]
}

/** What drafting does for one app. */
export interface AppSpeculation {
  /** Probability that one more drafted token is accepted, as the planner now counts on it. */
  acceptance: number
  /** Share of the tokens asked of the drafter that it offered, of late: less than 1 where it often has no idea. */
  hitRate: number
  /** Tokens verified per decode step of late, the sure one included: 1 where nothing is drafted. */
  length: number
  /** Since the start. */
  draftedTokens: number
  acceptedTokens: number
}
