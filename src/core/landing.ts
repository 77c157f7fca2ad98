/** What a step's end means: tokens come out and are judged, KV is in place, or the step has failed. The only place where the
 * state that is judged moves. */
import { assert } from "./assert.ts"
import type { Bookkeeper } from "./bookkeeper.ts"
import { ranShape } from "./cost.ts"
import type { Airborne, Flight } from "./flight.ts"
import type { KvAccount } from "./kv/account.ts"
import type { Learnt } from "./learn/learnt.ts"
import type { Line } from "./line.ts"
import type { OwnedKv } from "./owned-kv.ts"
import type { PlanningContext } from "./planner/context.ts"
import type { BatchItem, Effect, Event, RequestId, StageOutcome, StepResult } from "./protocol.ts"
import type { Recovery } from "./recovery.ts"
import type { LiveRequest } from "./request.ts"
import type { Round } from "./round.ts"

type StepDone = Extract<Event, { type: "stepDone" }>
type StepFailed = Extract<Event, { type: "stepFailed" }>

/** A request that fails alone in a batch this often has failed itself. */
const MOST_FAILURES = 2

export interface LandingParts {
  context: PlanningContext
  kv: KvAccount
  learnt: Learnt
  flight: Flight
  line: Line
  recovery: Recovery
  round: Round
  books: Bookkeeper
  /** Hand requests off with their first token. */
  prefillOnly: boolean
  /** Their first token makes their SLO a promise. */
  promisesAtFirstToken: boolean
  /** Where the engine owns its KV. */
  owned: OwnedKv | null
  tell: (effect: Effect) => void
}

export class Landing {
  readonly #parts: LandingParts

  constructor(parts: LandingParts) {
    this.#parts = parts
  }

  stepDone({ batch: number, durationUs, results }: StepDone, nowUs: number): void {
    const { context, learnt, flight, line, recovery, owned, books } = this.#parts
    if (owned === null)
      assert(flight.batches[0]?.number === number, `batch ${number} is not the one in flight`)
    const landed = flight.land(number, nowUs)
    if (owned === null) assert(!landed.failed, `batch ${number} was computed, though one before it failed`)
    recovery.stepDone()
    books.landed(landed, durationUs)
    const shape = ranShape(context.cost, landed, results) ?? landed.shape
    const took = { kind: landed.kind, shape, tookUs: durationUs, endedUs: nowUs }
    learnt.stepTook(took, results, context.cost)
    let next = 0
    let byId: Map<RequestId, StepResult> | null = null
    for (let i = 0; i < landed.items.length; i++) {
      const item = landed.items[i]!
      // Results come in the order of the items from our own engines; vLLM has an order of its own.
      const inOrder = results[next]?.id === item.id
      if (!inOrder) byId ??= new Map(results.map((one) => [one.id, one]))
      const result = inOrder ? results[next++] : byId!.get(item.id)
      // It may have been told of only after the engine ran it by itself.
      const request = landed.requests[i] ?? (owned === null ? undefined : line.get(item.id))
      if (request === undefined || request.gone) continue
      if (request.output === 0) learnt.zeroLoad.computed(request, item, landed, durationUs)
      const kept = !landed.failed && landed.preemptions[i] === request.preemptions
      this.#advance(request, item, result, kept, nowUs)
    }
    line.releaseLeft()
  }

  /** A live request's item was computed; `kept`: it has not lost its KV since. */
  #advance(
    request: LiveRequest,
    item: BatchItem,
    result: StepResult | undefined,
    kept: boolean,
    nowUs: number,
  ): void {
    const { books, learnt, owned, prefillOnly } = this.#parts
    const tokens = owned === null ? sureTokens(item, result) : owned.tokens(request, result)
    books.computed(request, item, tokens, result?.drafted, kept)
    if (result?.prefix !== undefined) request.prefix.push(...result.prefix)
    if (kept) this.#compute(request, item, result, tokens)
    request.failures = 0
    learnt.tenants.served(request, item, tokens)
    if (result === undefined || tokens === 0) return
    if (request.output > 0) learnt.speculation.observe(request.spec.app, item.draft, result)
    this.#emit(request, result, tokens, nowUs)
    if (prefillOnly && !request.gone) this.#handOff(request)
  }

  /** Its KV is in place up to what was computed. */
  #compute(request: LiveRequest, item: BatchItem, result: StepResult | undefined, tokens: number): void {
    const { kv, owned } = this.#parts
    // Drafts of a batch before this one may have been refused: then it began further back than was planned.
    const start = Math.min(request.computed, item.position)
    request.computed = start + item.tokens + Math.max(0, tokens - 1)
    owned?.computed(request, tokens, result?.computed)
    // Drafted tokens that were not accepted give their room back, unless a batch in flight counts on it. An engine that owns its KV
    // leaves the blocks with the request: what is not counted as the request's would be free to none.
    if (owned === null && item.draft > 0 && request.inAir === 0) kv.shrink(item.id, request.computed)
    // Otherwise its KV is what the batch took, and none of it can be shared.
    if (item.draft > 0 || request.prefix.length > 0) kv.computed(item.id, request.computed)
  }

  #emit(request: LiveRequest, { answeringFrom, stopped }: StepResult, tokens: number, nowUs: number): void {
    const { learnt, line, promisesAtFirstToken, tell } = this.#parts
    const before = request.output
    const lateUs = request.emit(tokens, answeringFrom, nowUs, this.#stageDone)
    learnt.outputLengths.grew(request.spec.app, before, request.output)
    tell({ type: "token", id: request.id, count: tokens, lateUs })
    if (before === 0 && request.tier === "slo" && promisesAtFirstToken) {
      request.account?.promised()
      tell({ type: "admitted", id: request.id })
    }
    if (stopped) line.end(request, "stop", nowUs)
    else if (request.output >= request.spec.maxOutputTokens) line.end(request, "length", nowUs)
  }

  #stageDone = (outcome: StageOutcome, id: RequestId): void => {
    this.#parts.tell({ type: "stageDone", id, outcome })
  }

  #handOff(request: LiveRequest): void {
    const { line, round, tell } = this.#parts
    line.remove(request)
    round.handedOff(request)
    tell({ type: "handedOff", id: request.id, progress: request.progress })
  }

  /** The batches behind it have failed with it: they count on what it did not compute. */
  stepFailed({ batch: number, reason }: StepFailed, nowUs: number): void {
    const { books, kv, flight, line, recovery } = this.#parts
    const failed = flight.land(number, nowUs)
    books.failed(failed)
    for (const batch of flight.batches) batch.failed = true
    // What failed with another before it is undone already, and at no fault of its own.
    if (!failed.failed) {
      for (const batch of [failed, ...flight.batches]) this.#undo(batch)
      kv.dropCache()
    }
    line.releaseLeft()
    if (failed.failed) return
    const suspects = failed.requests.filter((request): request is LiveRequest => request?.gone === false)
    const alone = suspects.length === 1 ? suspects[0]! : null
    if (alone !== null && ++alone.failures >= MOST_FAILURES) line.end(alone, "failed", nowUs)
    else if (alone !== null && reason === "kvFull")
      for (const other of line.requests) if (other !== alone) line.loseKv(other)
    recovery.stepFailed(suspects, reason, nowUs)
  }

  /** Nothing of a batch was computed. */
  #undo({ items, requests, preemptions }: Airborne): void {
    const { kv, line } = this.#parts
    for (let i = 0; i < items.length; i++) {
      const request = requests[i]
      const { id, position, copy } = items[i]!
      if (request === undefined || request.gone || request.preemptions !== preemptions[i]) continue
      if (position === 0 || copy !== undefined) line.loseKv(request)
      else kv.uncomputed(id, request.computed)
    }
  }
}

/** An engine that goes by the plan yields what was planned. */
function sureTokens({ id, sample, draft }: BatchItem, result: StepResult | undefined): number {
  const tokens = result?.tokens ?? 0
  if (tokens > 0 !== sample)
    assert(false, `request ${id} yielded ${sample ? "no token" : "a token too early"}`)
  if (tokens - 1 > draft) assert(false, `request ${id} accepted more than was drafted`)
  return tokens
}
