/** One request in a fleet's dispatcher: where it is, where it is wanted, and how far its answers have come. */
import type { RequestId } from "../core/protocol.ts"
import type { DispatchEvent, JobId } from "./dispatch.ts"
import { Suspect } from "./suspect.ts"
import type { Routed } from "./target.ts"

/** Replicas being asked, one after the other. */
export interface Search {
  /** Indices, in order of asking. */
  order: readonly number[]
  /** The next of them. */
  next: number
  /** The one that is asked now, as which job, and by when it must have answered. */
  job: JobId
  deadlineUs: number
  /** The job of the first, for when none promises; -1 when it was not answered in time. */
  firstJob: JobId
}

/** It is to be given up where it is, for another replica. */
export interface Leaving {
  /** -1: for any other. */
  to: number
  /** As which job it was promised there. */
  job: JobId
  askAgainUs: number
  /** Times asked. */
  asked: number
}

export class Entry {
  readonly id: RequestId
  readonly request: Routed
  readonly choices: number
  readonly arrivedUs: number
  /** It waits no longer than this where it is at no replica. */
  giveUpUs: number
  /** Its replica; -1: none. And the job that it is there. */
  at = -1
  job: JobId = -1
  search: Search | null = null
  leaving: Leaving | null = null
  /** Its replica was asked to give it up, maybe more than once: a yes may come after a no. */
  withdrawn = false
  /** Tokens out, over all choices. */
  output = 0
  /** Its replica has said that it began. */
  started = false
  /** Times it went to another replica for its SLO's sake; times it was offered about for that. */
  moves = 0
  reoffers = 0
  /** Times it was to be placed. */
  places = 0
  /** Times it was lost. */
  losses = 0
  /** Replicas that would not have it, and until when they are not tried again. */
  avoid: Map<number, number> | null = null
  /** Some replica's queue was full. */
  full = false
  /** Not accepted before a replica promises to keep its SLOs. */
  onPromise: boolean
  /** When it is looked at next, and when it is tried again while it waits. */
  armedUs = Infinity
  retryUs = Infinity
  /** Since when it waits for a trial of its own; -1: it does not. */
  trialSinceUs = -1
  readonly suspect = new Suspect()
  /** Counted among the suspects of its replica. */
  counted = false
  readonly #ended: boolean[]
  #left: number

  constructor(event: Extract<DispatchEvent, { type: "arrived" }>, nowUs: number) {
    const { id, request, choices, patienceUs, onPromise = false } = event
    this.id = id
    this.request = request
    this.choices = choices
    this.arrivedUs = nowUs
    this.giveUpUs = nowUs + patienceUs
    this.onPromise = onPromise
    this.#left = choices
    this.#ended = new Array<boolean>(choices).fill(false)
  }

  get begun(): boolean {
    return this.output > 0 || this.#left < this.choices
  }
  get over(): boolean {
    return this.#left === 0
  }

  /** One of its answers is complete. */
  choiceEnded(choice: number): void {
    if (this.#ended[choice] !== false) return
    this.#ended[choice] = true
    this.#left--
  }
}
