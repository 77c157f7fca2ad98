/** What one engine says, step by step, as events of its core, in the order in which things happened. */
import type { Event, RanItem, RequestId, StepResult } from "../core/protocol.ts"
import { MessageError } from "../wire/messages.ts"
import type { Column } from "../wire/planner/columns.ts"
import { type Arrived, LANDED, type Landed, type Ran, type StepMessage } from "../wire/planner/messages.ts"

/** Whose choice a step was: the plan's, the plan's with changes, the engine's own. */
export type StepOf = "plan" | "changed" | "engine"

/** A step that the engine has scheduled. */
export interface Flown {
  batch: number
  of: StepOf
}

export interface EngineEventsSink {
  /** To the core, at `atUs` on the engine's clock. */
  post(event: Event, atUs: number): void
  arrived(arrived: Arrived, nowUs: number): void
  /** All that arrived with one message is told; its step is not. */
  allArrived(): void
  /** The engine has scheduled a step. */
  scheduled(of: StepOf): void
  /** The engine has not run this batch, and will not. */
  unused(batch: number): void
  landed(flown: Flown, landed: Landed): void
}

export class EngineEvents {
  readonly #sink: EngineEventsSink
  /** The batch of the last plan, until the engine has said whether it ran. */
  #planned = 0
  /** Steps that have not landed, by the message that told of them. */
  readonly #flying = new Map<number, Flown>()
  /** Numbers of batches without a plan: 0 and below. */
  #own = 1
  #seq = 0

  constructor(sink: EngineEventsSink) {
    this.#sink = sink
  }

  /** The engine was told to run this batch next; 0: none. */
  planned(batch: number): void {
    this.#planned = batch
  }

  /** Throws MessageError for what cannot be. */
  take(step: StepMessage): void {
    if (step.seq <= this.#seq) throw new MessageError(`step ${step.seq} after step ${this.#seq}`)
    this.#seq = step.seq
    const { nowUs, cancelled = NONE, lost = NONE } = step
    const late = this.#cancelBefore(step)
    for (const landed of step.landed) this.#landed(landed)
    for (const arrived of step.arrived) this.#sink.arrived(arrived, nowUs)
    if (step.arrived.length > 0) this.#sink.allArrived()
    for (const id of step.ready ?? NONE) this.#sink.post({ type: "grammarReady", id }, nowUs)
    for (const id of cancelled) if (late.has(id)) this.#sink.post({ type: "cancelled", id }, nowUs)
    this.#ran(step, lost)
  }

  /** A number for a batch of the engine's own. */
  ownBatch(): number {
    return --this.#own
  }

  /** An aborted request may be missing in the step that it was in: the core hears first that it has ended. Answers with those
   * that are told afterwards: their last tokens came before. */
  #cancelBefore({ cancelled, landed, nowUs }: StepMessage): ReadonlySet<RequestId> {
    if (cancelled === undefined) return NO_IDS
    const seen = new Set<RequestId>()
    for (const { ids } of landed) for (const id of ids) seen.add(id)
    // What landed since is not to be later for it.
    const atUs = landed[0]?.atUs ?? nowUs
    for (const id of cancelled) if (!seen.has(id)) this.#sink.post({ type: "cancelled", id }, atUs)
    return seen
  }

  #landed(landed: Landed): void {
    const flown = this.#flying.get(landed.step)
    if (flown === undefined) throw new MessageError(`landed: step ${landed.step} is not in flight`)
    this.#flying.delete(landed.step)
    this.#giveUpBefore(landed)
    const { durationUs, atUs } = landed
    const results = resultsOf(landed)
    this.#sink.post({ type: "stepDone", batch: flown.batch, durationUs, results }, atUs)
    this.#sink.landed(flown, landed)
    const dropped = droppedIn(landed)
    if (dropped.length > 0) this.#sink.post({ type: "kvLost", ids: dropped }, atUs)
  }

  /** Steps land in their order: an older one that is missing never will, or the core would wait for it for ever. */
  #giveUpBefore({ step, atUs }: Landed): void {
    for (const [seq, { batch }] of this.#flying) {
      if (seq > step) return
      this.#flying.delete(seq)
      this.#sink.unused(batch)
      this.#changed(batch, null, [], atUs)
    }
  }

  #ran({ seq, ran, nowUs }: StepMessage, lost: Iterable<RequestId>): void {
    const preempted = Array.from(lost)
    const planned = this.#planned
    this.#planned = 0
    const isPlan = ran !== null && ran.batch !== 0
    if (isPlan && ran.batch !== planned)
      throw new MessageError(`batch ${ran.batch} ran, but the plan was batch ${planned}`)
    // A plan that came too late, or to nothing.
    if (planned !== 0 && !isPlan) {
      this.#sink.unused(planned)
      this.#changed(planned, null, [], nowUs)
    }
    if (ran === null || ran.exact) {
      if (preempted.length > 0) this.#sink.post({ type: "kvLost", ids: preempted }, nowUs)
      if (ran !== null) this.#flies(seq, planned, "plan")
      return
    }
    const batch = isPlan ? planned : this.ownBatch()
    const runs = ran.ids!.length > 0
    if (isPlan && !runs) this.#sink.unused(batch)
    if (isPlan || runs) this.#changed(batch, ran, preempted, ran.atUs)
    if (runs) this.#flies(seq, batch, isPlan ? "changed" : "engine")
  }

  #changed(batch: number, ran: Ran | null, preempted: RequestId[], atUs: number): void {
    const items = ran === null ? [] : itemsOf(ran)
    // The plug-in gives up what a plan evicts before it looks at what may run.
    const evicted = ran !== null && items.length === 0
    this.#sink.post(
      { type: "ran", batch, items, ...(evicted && { evicted }), ...(preempted.length > 0 && { preempted }) },
      atUs,
    )
  }

  #flies(seq: number, batch: number, of: StepOf): void {
    this.#flying.set(seq, { batch, of })
    this.#sink.scheduled(of)
  }
}

const NONE: readonly number[] = []
const NO_IDS: ReadonlySet<RequestId> = new Set()

function itemsOf({ ids, positions, tokens, drafts }: Ran): RanItem[] {
  const items: RanItem[] = new Array(ids!.length)
  for (let i = 0; i < items.length; i++)
    items[i] = { id: ids![i]!, position: positions![i]!, tokens: tokens![i]!, draft: drafts?.[i] ?? 0 }
  return items
}

function resultsOf(landed: Landed): StepResult[] {
  const { ids, produced, computed, flags, drafted, answeringFrom } = landed
  const results: StepResult[] = new Array(ids.length)
  for (let i = 0; i < ids.length; i++) {
    const result: StepResult = {
      id: ids[i]!,
      tokens: produced[i]!,
      stopped: has(flags, i, LANDED.stopped),
      answeringFrom: answeringFrom?.[i] ?? -1,
    }
    if (drafted !== undefined) result.drafted = drafted[i]!
    if (computed !== undefined) result.computed = computed[i]!
    results[i] = result
  }
  if (landed.filledIds !== undefined) addFilled(results, landed.filledIds, landed.filledHashes!)
  return results
}

function addFilled(results: StepResult[], ids: Column, hashes: Column): void {
  const prefixes = new Map<RequestId, number[]>()
  for (let i = 0; i < ids.length; i++) {
    const prefix = prefixes.get(ids[i]!)
    if (prefix === undefined) prefixes.set(ids[i]!, [hashes[i]!])
    else prefix.push(hashes[i]!)
  }
  for (const result of results) {
    const prefix = prefixes.get(result.id)
    if (prefix !== undefined) result.prefix = prefix
  }
}

function droppedIn({ ids, flags }: Landed): RequestId[] {
  if (flags === undefined) return []
  const dropped: RequestId[] = []
  for (let i = 0; i < ids.length; i++) if (has(flags, i, LANDED.preempted)) dropped.push(ids[i]!)
  return dropped
}

function has(flags: Column | undefined, at: number, bit: number): boolean {
  return flags !== undefined && (flags[at]! & bit) !== 0
}
