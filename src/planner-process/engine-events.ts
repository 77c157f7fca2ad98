/** What one engine says, step by step, as events of its core, in the order in which things happened. */
import type { Event, RanItem, RequestId, StepResult } from "../core/protocol.ts"
import { MessageError } from "../wire/messages.ts"
import type { Column } from "../wire/planner/columns.ts"
import type { Arrived, Landed, PlanMessage, Ran, StepMessage } from "../wire/planner/messages.ts"

/** Whose choice a step was: the plan's, the plan's with changes, the engine's own. */
export type StepOf = "plan" | "changed" | "engine"

/** A step that the engine has scheduled. */
export interface Flown {
  batch: number
  of: StepOf
  /** Its requests, in the order in which it was told. */
  ids: Column
}

/** A step that has landed, with all that was left out of the message. */
export type Landing = Landed & { ids: Column; produced: Column }

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
  landed(flown: Flown, landed: Landing): void
}

export class EngineEvents {
  readonly #sink: EngineEventsSink
  /** The last plan, until the engine has said whether it ran. */
  #planned = NO_PLAN
  /** Steps that have not landed, by the message that told of them. */
  readonly #flying = new Map<number, Flown>()
  /** Numbers of batches without a plan: 0 and below. */
  #own = 1
  #seq = 0

  constructor(sink: EngineEventsSink) {
    this.#sink = sink
  }

  /** The engine was told to run this batch next; 0: none. */
  planned({ batch, ids }: Planned): void {
    this.#planned = { batch, ids }
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
    for (const { step, ids } of landed)
      for (const id of ids ?? this.#flying.get(step)?.ids ?? NONE) seen.add(id)
    // What landed since is not to be later for it.
    const atUs = landed[0]?.atUs ?? nowUs
    for (const id of cancelled) if (!seen.has(id)) this.#sink.post({ type: "cancelled", id }, atUs)
    return seen
  }

  #landed(told: Landed): void {
    const flown = this.#flying.get(told.step)
    if (flown === undefined) throw new MessageError(`landed: step ${told.step} is not in flight`)
    this.#flying.delete(told.step)
    this.#giveUpBefore(told)
    const landed = landingOf(told, flown)
    const { durationUs, atUs } = landed
    const results = resultsOf(landed)
    this.#sink.post({ type: "stepDone", batch: flown.batch, durationUs, results }, atUs)
    this.#sink.landed(flown, landed)
    const dropped = Array.from(landed.preempted ?? NONE)
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
    const { batch: planned, ids } = this.#planned
    this.#planned = NO_PLAN
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
      if (ran !== null) this.#flies(seq, { batch: planned, of: "plan", ids })
      return
    }
    const batch = isPlan ? planned : this.ownBatch()
    const runs = ran.ids!.length > 0
    if (isPlan && !runs) this.#sink.unused(batch)
    if (isPlan || runs) this.#changed(batch, ran, preempted, ran.atUs)
    if (runs) this.#flies(seq, { batch, of: isPlan ? "changed" : "engine", ids: ran.ids! })
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

  #flies(seq: number, flown: Flown): void {
    this.#flying.set(seq, flown)
    this.#sink.scheduled(flown.of)
  }
}

type Planned = Pick<PlanMessage, "batch" | "ids">

const NONE: readonly number[] = []
const NO_PLAN: Planned = { batch: 0, ids: new Float64Array() }
const NO_IDS: ReadonlySet<RequestId> = new Set()

function itemsOf({ ids, positions, tokens, drafts }: Ran): RanItem[] {
  const items: RanItem[] = new Array(ids!.length)
  for (let i = 0; i < items.length; i++)
    items[i] = { id: ids![i]!, position: positions![i]!, tokens: tokens![i]!, draft: drafts?.[i] ?? 0 }
  return items
}

function landingOf(told: Landed, { ids }: Flown): Landing {
  if (told.ids !== undefined) return { ...told, ids: told.ids, produced: told.produced! }
  return { ...told, ids, produced: new Float64Array(ids.length).fill(1) }
}

function resultsOf(landed: Landing): StepResult[] {
  const { ids, produced, computed, drafted, answeringFrom } = landed
  const stopped = landed.stopped === undefined ? NO_IDS : new Set(landed.stopped)
  const results: StepResult[] = new Array(ids.length)
  for (let i = 0; i < ids.length; i++) {
    const result: StepResult = {
      id: ids[i]!,
      tokens: produced[i]!,
      stopped: stopped.has(ids[i]!),
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
