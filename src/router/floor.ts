/** What a fleet's dispatcher keeps: its requests, its replicas, which is at which, and what is to be done next. */
import { assert } from "../core/assert.ts"
import type { RequestId } from "../core/protocol.ts"
import type { DispatchEffect, JobId } from "./dispatch.ts"
import type { Entry } from "./entry.ts"
import type { HealthOptions } from "./health.ts"
import { Member } from "./member.ts"
import { Timers } from "./timers.ts"

/** A job at a replica. */
export interface Held {
  entry: Entry
  member: Member
  /** Asked for only. */
  asked: boolean
}

export class Floor {
  readonly entries = new Map<RequestId, Entry>()
  readonly jobs = new Map<JobId, Held>()
  readonly members: Member[] = []
  /** At no replica, and none asked. */
  readonly waiting = new Set<Entry>()
  /** Those of them that wait for a replica to themselves. */
  readonly apart = new Set<Entry>()
  readonly #timers = new Timers<Entry | Member>()
  nowUs = 0
  #effects: DispatchEffect[] = []
  #nextJob: JobId
  readonly #health: HealthOptions

  constructor(health: HealthOptions, firstJob: JobId) {
    this.#health = health
    this.#nextJob = firstJob
  }

  member(index: number): Member {
    while (this.members.length <= index)
      this.members.push(new Member(this.members.length, this.#health, this.nowUs))
    return this.members[index]!
  }

  newJob(): JobId {
    return this.#nextJob++
  }

  /** To be looked at then, if not before. */
  arm(item: Entry | Member, atUs: number): void {
    if (atUs >= item.armedUs) return
    item.armedUs = atUs
    this.#timers.add(atUs, item)
  }

  /** When the next one is due, and what is due by now. */
  get nextUs(): number {
    return this.#timers.nextUs
  }
  takeDue(): Entry | Member | undefined {
    for (;;) {
      const item = this.#timers.take(this.nowUs)
      // One that was looked at in the meantime, or is over, is not due any more.
      if (item === undefined) return undefined
      if (item.armedUs > this.nowUs) continue
      item.armedUs = Infinity
      if (item instanceof Member || this.entries.get(item.id) === item) return item
    }
  }

  wait(entry: Entry, untilUs: number): void {
    entry.retryUs = untilUs
    this.waiting.add(entry)
    if (entry.suspect.onTrial) this.apart.add(entry)
    this.arm(entry, untilUs)
  }
  waitsNoMore(entry: Entry): void {
    this.waiting.delete(entry)
    this.apart.delete(entry)
  }

  want(effect: DispatchEffect): void {
    this.#effects.push(effect)
  }

  takeEffects(): DispatchEffect[] {
    const effects = this.#effects
    this.#effects = []
    return effects
  }

  /** The job that the replica has; undefined for one that it was only asked for, or that is over. */
  placed(job: JobId): Held | undefined {
    const held = this.jobs.get(job)
    return held?.asked ? undefined : held
  }

  ask(entry: Entry, member: Member, job: JobId): void {
    this.jobs.set(job, { entry, member, asked: true })
    member.asked.add(job)
  }

  /** It is not asked for any more. */
  answered(job: JobId): void {
    this.jobs.get(job)?.member.asked.delete(job)
    this.jobs.delete(job)
  }

  put(entry: Entry, member: Member, job: JobId): void {
    entry.at = member.index
    entry.job = job
    entry.started = false
    entry.withdrawn = false
    this.jobs.set(job, { entry, member, asked: false })
    member.entries.add(entry)
    if (entry.suspect.deaths === 0) return
    entry.counted = true
    member.suspects++
  }

  /** Have it given up where it is. */
  withdraw(entry: Entry): void {
    entry.withdrawn = true
    this.want({ type: "withdraw", job: entry.job, replica: entry.at })
  }

  /** It is not where it was. */
  take(entry: Entry): void {
    const member = this.members[entry.at]!
    this.jobs.delete(entry.job)
    this.notSuspect(entry)
    member.entries.delete(entry)
    entry.at = -1
    entry.leaving = null
  }

  /** It does not count among its replica's suspects any more. */
  notSuspect(entry: Entry): void {
    const member = this.members[entry.at]!
    member.trial.delete(entry)
    if (entry.counted) member.suspects--
    entry.counted = false
  }

  /** Invariants; throws on the first one broken. */
  check(): void {
    let [placed, searching] = [0, 0]
    for (const entry of this.entries.values()) {
      this.#checkEntry(entry)
      if (entry.at >= 0) placed++
      if (entry.search !== null) searching++
    }
    const { size } = this.jobs
    assert(size === placed + searching, `${size} jobs for ${placed} placed, ${searching} asked for`)
    for (const member of this.members) {
      placed -= member.entries.size
      this.#checkMember(member)
    }
    assert(placed === 0, "a replica has what is not placed")
    for (const { id } of this.waiting) assert(this.entries.has(id), `request ${id} waits, but is over`)
  }

  #checkEntry(entry: Entry): void {
    const { id, at, job, search, leaving } = entry
    const waits = this.waiting.has(entry)
    assert(!entry.over, `request ${id} is over, but still here`)
    assert(at >= 0 || waits || search !== null, `request ${id} is nowhere and waits for nothing`)
    assert(!waits || (at < 0 && search === null), `request ${id} waits, but is somewhere`)
    assert(leaving === null || at >= 0, `request ${id} leaves, but is nowhere`)
    if (at < 0) return
    const member = this.members[at]!
    assert(this.placed(job)?.entry === entry, `request ${id}'s job ${job} is not known`)
    assert(member.entries.has(entry), `replica ${at} does not know request ${id}`)
    assert(member.state !== "down", `request ${id} is at replica ${at}, which is down`)
  }

  #checkMember({ index, entries, asked, trial, suspects }: Member): void {
    const counted = [...entries].filter((entry) => entry.counted)
    assert(suspects === counted.length, `replica ${index} has ${counted.length} suspects, not ${suspects}`)
    for (const job of asked)
      assert(this.jobs.get(job)?.asked === true, `replica ${index} was never asked for job ${job}`)
    for (const entry of trial) assert(entries.has(entry), `replica ${index} tries what it does not have`)
  }
}
