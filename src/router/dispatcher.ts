/** The state machine of a fleet (docs/fleet.md, Dispatching): which replica each request is at, and what happens to it when
 * that one turns it down, does not answer, or dies. Pure: `handle(event, now)` changes state, `poll(now)` looks at what is
 * due by then and returns what is to be done. The simulator and the real fleet drive the same. A request is at one replica
 * at most: it goes to another only when the first has given it up or ended it, or is gone. */
import { assert } from "../core/assert.ts"
import type { RequestId } from "../core/protocol.ts"
import type { DispatchEffect, DispatchEvent, DownCause, JobId, LossReason } from "./dispatch.ts"
import { Entry } from "./entry.ts"
import { Floor } from "./floor.ts"
import { HEALTH_DEFAULTS, type HealthOptions } from "./health.ts"
import { Member } from "./member.ts"
import { inOrder, Placing, type PlacingOptions, type PlacingTimes } from "./placing.ts"
import { Router, type RouterOptions } from "./router.ts"
import type { Routed } from "./target.ts"

export interface DispatcherOptions extends Pick<PlacingOptions, "chances"> {
  router?: RouterOptions
  health?: Partial<HealthOptions>
  times?: Partial<DispatchTimes>
  /** Most requests that wait for a replica. Default 10,000. */
  mostWaiting?: number
  /** Number of its first job: where an earlier gateway's may still be about. Default 1. */
  firstJob?: JobId
}

/** All in µs. */
export interface DispatchTimes extends PlacingTimes {
  /** A digest older than this is aged. */
  freshUs: number
  /** A request that a replica has had waits so long for another one. */
  resumePatienceUs: number
}

export const DISPATCH_TIMES: DispatchTimes = {
  ...{ askUs: 50_000, withdrawUs: 200_000, freshUs: 250_000 },
  ...{ resumePatienceUs: 30_000_000, avoidUs: 500_000, trialWaitUs: 2_000_000 },
}

/** A request that is lost so often in a row, no token between, is served nowhere. */
const MOST_LOSSES = 8
/** Nonsense counts as so many failures. */
const BROKEN_WEIGHT = 5
/** Jobs that die so close together died together. */
const SAME_DEATH_US = 1_000_000

type Of<T extends DispatchEvent["type"]> = Extract<DispatchEvent, { type: T }>

export class Dispatcher {
  readonly router: Router
  readonly #times: DispatchTimes
  readonly #health: HealthOptions
  readonly #floor: Floor
  readonly #placing: Placing
  #wakeUs = Infinity

  constructor(options: DispatcherOptions) {
    this.#times = { ...DISPATCH_TIMES, ...options.times }
    this.#health = { ...HEALTH_DEFAULTS, ...options.health }
    this.router = new Router(options.router)
    this.#floor = new Floor(this.#health, options.firstJob ?? 1)
    const { chances, mostWaiting = 10_000 } = options
    this.#placing = new Placing(this.#floor, this.router, { times: this.#times, chances, mostWaiting })
  }

  /** Live requests; those of them that wait for a replica. */
  get live(): number {
    return this.#floor.entries.size
  }
  get waiting(): number {
    return this.#floor.waiting.size
  }
  /** Whether the replica may be given requests, and how many it has. */
  usable(replica: number): boolean {
    return this.#floor.members[replica]?.usable ?? false
  }
  at(replica: number): number {
    return this.#floor.members[replica]?.entries.size ?? 0
  }

  handle(event: DispatchEvent, nowUs: number): void {
    this.#floor.nowUs = nowUs
    if ("replica" in event) this.#ofReplica(event)
    else if ("job" in event) this.#ofJob(event)
    else if (event.type === "arrived") this.#arrived(event)
    else if (event.type === "cancelled") this.#cancelled(event.id)
  }

  /** Effects since the last poll, in order, and those of what is due by now. */
  poll(nowUs: number): DispatchEffect[] {
    const floor = this.#floor
    floor.nowUs = nowUs
    if (this.#wakeUs <= nowUs) this.#wakeUs = Infinity
    for (let due = floor.takeDue(); due !== undefined; due = floor.takeDue()) {
      if (due instanceof Member) this.#checkUp(due)
      else this.#due(due)
    }
    if (floor.nextUs < this.#wakeUs) {
      this.#wakeUs = floor.nextUs
      floor.want({ type: "wake", atUs: this.#wakeUs })
    }
    return floor.takeEffects()
  }

  /** Another dispatcher before the same replicas gave such a request to that one: its prompt is there now. */
  placedElsewhere(request: Routed, replica: number, nowUs: number): void {
    this.#floor.nowUs = nowUs
    this.router.placed(request, this.#floor.members, replica, nowUs)
  }

  /** The same of some time ago. */
  wasPlacedElsewhere(request: Routed, replica: number): void {
    this.router.wasPlaced(request, this.#floor.members, replica)
  }

  /** Invariants; throws on the first one broken. For tests and fuzzing. */
  check(): void {
    this.#floor.check()
  }

  // Requests.

  #arrived(event: Of<"arrived">): void {
    const { entries, nowUs } = this.#floor
    assert(!entries.has(event.id), `request ${event.id} arrived twice`)
    const entry = new Entry(event, nowUs)
    entries.set(event.id, entry)
    this.#placing.place(entry)
  }

  #cancelled(id: RequestId): void {
    const entry = this.#floor.entries.get(id)
    if (entry !== undefined) this.#placing.end(entry)
  }

  /** What becomes of it where it is. What is said of jobs that are over is old. */
  #ofJob(event: Extract<DispatchEvent, { job: JobId }>): void {
    const held = this.#floor.placed(event.job)
    if (held === undefined) return
    const { entry, member } = held
    if (event.type === "lost") return void this.#lost(entry, member, event.reason)
    member.health.moved(this.#floor.nowUs)
    if (event.type === "withdrawn") this.#withdrawn(entry, event.ok)
    else if (event.type === "turnedDown") this.#placing.reoffer(entry)
    else if (event.type === "started") member.tellsStarts = entry.started = true
    else if (event.type === "progressed") this.#progressed(entry, member, event.tokens)
    else if (event.type === "choiceEnded") {
      entry.started = true
      entry.choiceEnded(event.choice)
      if (entry.over) this.#placing.end(entry)
    }
  }

  #progressed(entry: Entry, member: Member, tokens: number): void {
    entry.started = true
    entry.output += tokens
    entry.losses = 0
    member.health.succeeded(this.#floor.nowUs)
    // What others would promise is of no use to it any more.
    this.#placing.stopSearch(entry)
    if (entry.suspect.deaths === 0) return
    entry.suspect.progressed(entry.output)
    if (entry.suspect.deaths > 0) return
    const tried = member.trial.size > 0
    this.#floor.notSuspect(entry)
    if (tried && member.trial.size === 0) this.#placing.retry()
  }

  #offered({ job, replica, takes }: Of<"offered">, member: Member): void {
    member.health.heard(this.#floor.nowUs)
    const held = this.#floor.jobs.get(job)
    // A late answer is a no. One that comes twice was acted on.
    if (held === undefined && takes) this.#floor.want({ type: "withdraw", job, replica })
    if (!held?.asked) return
    member.health.succeeded(this.#floor.nowUs)
    this.#placing.answered(held.entry, member, job, takes)
  }

  #withdrawn(entry: Entry, ok: boolean): void {
    const { leaving } = entry
    if (!ok) {
      entry.leaving = null
      if (leaving !== null) this.#floor.want({ type: "withdraw", job: leaving.job, replica: leaving.to })
      return
    }
    // Of an offer that had the same number.
    if (!entry.withdrawn) return
    this.#placing.stopSearch(entry)
    this.#placing.detach(entry)
    const taker = leaving === null ? undefined : this.#floor.members[leaving.to]
    if (taker?.alive) {
      entry.moves++
      this.#placing.submit(entry, taker, leaving!.job)
    } else this.#placing.place(entry)
  }

  #lost(entry: Entry, member: Member, reason: LossReason): void {
    const { nowUs, entries } = this.#floor
    member.health.heard(nowUs)
    if (reason === "died" && nowUs - member.lastDeathUs >= SAME_DEATH_US) this.#death(member)
    if (!entries.has(entry.id)) return
    if (reason === "full") entry.full = true
    else this.#failed(member, reason === "broken" ? BROKEN_WEIGHT : 1)
    entry.avoid ??= new Map()
    entry.avoid.set(member.index, nowUs + this.#times.avoidUs)
    this.#goOn([entry], reason)
  }

  /** These are not where they were any more. */
  #goOn(entries: readonly Entry[], reason: LossReason | DownCause): void {
    const { nowUs, members } = this.#floor
    const promised = new Map(entries.map((entry) => [entry, entry.leaving]))
    for (const entry of entries) {
      this.#placing.stopSearch(entry)
      this.#placing.detach(entry)
      if (reason === "full") continue
      if (reason !== "closed") entry.losses++
      // It was accepted: its patience begins anew.
      entry.giveUpUs = Math.max(entry.giveUpUs, nowUs + this.#times.resumePatienceUs)
    }
    for (const entry of inOrder(entries)) {
      const leaving = promised.get(entry)
      const taker = leaving ? members[leaving.to] : undefined
      if (entry.losses > MOST_LOSSES) this.#placing.fail(entry, "unserved")
      else if (taker?.alive && !entry.suspect.onTrial) this.#placing.submit(entry, taker, leaving!.job)
      else this.#placing.place(entry)
    }
  }

  /** What was there is suspected, and failed if it is found out. */
  #death(member: Member): void {
    member.lastDeathUs = this.#floor.nowUs
    const there = [...member.entries]
    for (const entry of there) {
      entry.suspect.died(entry.output, entry.started || !member.tellsStarts, there.length)
      if (!entry.counted) member.suspects++
      entry.counted = true
      if (entry.suspect.guilty) this.#placing.fail(entry, "poison")
    }
  }

  // Replicas.

  #ofReplica(event: Extract<DispatchEvent, { replica: number }>): void {
    const { nowUs } = this.#floor
    const member = this.#floor.member(event.replica)
    if (event.type === "offered") this.#offered(event, member)
    else if (event.type === "digest") this.#told(event, member)
    else if (event.type === "heard") member.health.heard(nowUs)
    else if (event.type === "replicaUp") this.#up(member)
    else if (event.type === "replicaDown") this.#down(member, event.cause)
    else if (event.type === "expected") this.#expected(member, event.byUs)
    else if (event.type === "replicaDraining") {
      if (member.state === "up") member.state = "draining"
    } else if (event.type === "probed") {
      member.health.heard(nowUs)
      if (member.health.probed(event.ok, nowUs)) this.#placing.retry()
    }
  }

  #up(member: Member): void {
    this.#down(member, "died")
    member.reset(this.#health, this.#floor.nowUs)
    member.state = "up"
    // Another life: what it would not have before is nothing to it.
    for (const { avoid } of this.#floor.waiting) avoid?.delete(member.index)
    this.#floor.arm(member, this.#floor.nowUs)
    this.#placing.retry()
  }

  #down(member: Member, cause: DownCause): void {
    if (member.state === "down") return
    member.state = "down"
    this.router.forget(member.index)
    if (cause !== "closed") this.#death(member)
    this.#goOn([...member.entries], cause)
    for (const job of [...member.asked]) {
      const held = this.#floor.jobs.get(job)
      if (held !== undefined) this.#placing.unanswered(held.entry)
    }
  }

  /** What waits for it in vain is told so. */
  #expected(member: Member, byUs: number | null): void {
    if (member.state !== "down") return
    member.expectedUs = byUs
    this.#placing.giveUpHopeless()
  }

  #told({ snapshot, takenAtUs, computes }: Of<"digest">, member: Member): void {
    if (member.state === "down") return
    member.told(snapshot, takenAtUs)
    member.health.told(snapshot, this.#floor.nowUs)
    const back = computes && !member.computes
    member.computes = computes
    if (back) this.#placing.retry()
  }

  #failed(member: Member, weight: number): void {
    const { members, nowUs } = this.#floor
    if (!member.health.failed(weight)) return
    // The last one is better than none.
    if (!members.some((other) => other !== member && other.usable)) return
    member.health.eject(nowUs)
    this.#floor.arm(member, member.health.probeAtUs)
  }

  // What time brings.

  #due(entry: Entry): void {
    const { nowUs, jobs, waiting } = this.#floor
    const { search, leaving, retryUs } = entry
    if (search !== null && search.deadlineUs <= nowUs) {
      this.#failed(jobs.get(search.job)!.member, 1)
      this.#placing.unanswered(entry)
    }
    if (leaving !== null && leaving.askAgainUs <= nowUs) this.#askAgain(entry)
    if (waiting.has(entry) && retryUs <= nowUs) this.#placing.place(entry)
    this.#floor.arm(entry, entry.search?.deadlineUs ?? Infinity)
    this.#floor.arm(entry, entry.leaving?.askAgainUs ?? Infinity)
    if (waiting.has(entry)) this.#floor.arm(entry, entry.retryUs)
  }

  #askAgain(entry: Entry): void {
    const { nowUs, members } = this.#floor
    const leaving = entry.leaving!
    leaving.askAgainUs = nowUs + this.#times.withdrawUs * 2 ** Math.min(4, leaving.asked++)
    this.#failed(members[entry.at]!, 1)
    this.#floor.withdraw(entry)
  }

  /** Once in a while for each replica that is not down. */
  #checkUp(member: Member): void {
    const { nowUs } = this.#floor
    const { health, index: replica } = member
    if (member.state === "down") return
    const reason = health.verdict(nowUs)
    if (reason !== null) {
      this.#floor.want({ type: "giveUp", replica, reason })
      return void this.#down(member, "died")
    }
    if (health.probeAtUs <= nowUs) {
      health.probing(nowUs)
      this.#floor.want({ type: "probe", replica })
    }
    const { freshUs } = this.#times
    if (nowUs - member.snapshot().nowUs > freshUs) member.age(nowUs)
    this.#floor.arm(member, Math.min(nowUs + freshUs, health.verdictDueUs, health.probeAtUs))
  }
}
