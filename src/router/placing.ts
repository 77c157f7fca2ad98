/** How a request finds its replica: which are asked, in which order, and what it waits for. One step at a time: nothing here
 * waits for an answer. */
import type { RequestId } from "../core/protocol.ts"
import type { FailReason, JobId } from "./dispatch.ts"
import type { Entry } from "./entry.ts"
import type { Floor } from "./floor.ts"
import type { Member } from "./member.ts"
import type { Router } from "./router.ts"
import type { Chances } from "./target.ts"

/** All in µs. */
export interface PlacingTimes {
  /** An offer is answered within this, or it is a no; at most a tenth of the request's patience. */
  askUs: number
  /** What is to be given up is asked for again after this, then after twice as long, up to 16 times. */
  withdrawUs: number
  /** A replica that would not have a request is not tried again with it for so long. */
  avoidUs: number
  /** A suspect waits so long for a replica to itself. */
  trialWaitUs: number
}

export interface PlacingOptions {
  times: PlacingTimes
  /** The luck of a request's n-th placing. */
  chances: (id: RequestId, place: number) => Chances
  /** Most requests that wait for a replica. */
  mostWaiting: number
}

/** It is offered about at most so many times for each move that it may make. */
const REOFFERS_PER_MOVE = 4

export class Placing {
  readonly #floor: Floor
  readonly #router: Router
  readonly #options: PlacingOptions

  constructor(floor: Floor, router: Router, options: PlacingOptions) {
    this.#floor = floor
    this.#router = router
    this.#options = options
  }

  /** A request that is nowhere. */
  place(entry: Entry): void {
    const floor = this.#floor
    floor.waitsNoMore(entry)
    if (entry.suspect.onTrial && this.#tryApart(entry)) return
    const chances = this.#options.chances(entry.id, placeOf(entry.places++, 0))
    const order = this.#barring(entry, () => this.#router.order(entry.request, floor.members, chances))
    if (order.length === 0) this.#wait(entry)
    else if (order.length === 1 && !entry.onPromise)
      this.submit(entry, floor.members[order[0]!]!, floor.newJob())
    else this.#search(entry, order)
  }

  /** Some replica may take now what waits. */
  retry(waiting: ReadonlySet<Entry> = this.#floor.waiting): void {
    if (waiting.size === 0) return
    for (const entry of inOrder([...waiting])) if (waiting.has(entry)) this.place(entry)
  }

  /** What waits for no replica that may come in its time is told so. */
  giveUpHopeless(): void {
    const hopeless = [...this.#floor.waiting].filter((entry) => !this.#hopes(entry))
    for (const entry of inOrder(hopeless)) this.fail(entry, "noReplica")
  }

  submit(entry: Entry, member: Member, job: JobId): void {
    const floor = this.#floor
    entry.onPromise = false
    floor.put(entry, member, job)
    this.#router.placed(entry.request, floor.members, member.index, floor.nowUs)
    floor.want({ type: "submit", job, id: entry.id, replica: member.index, resumed: entry.begun })
  }

  /** It is turned down where it is: others may take it. */
  reoffer(entry: Entry): void {
    const { reoffers } = this.#router
    if (entry.begun || entry.suspect.onTrial || entry.search !== null || entry.leaving !== null) return
    if (entry.moves >= reoffers || entry.reoffers >= REOFFERS_PER_MOVE * reoffers) return
    entry.reoffers++
    const { request, at } = entry
    const { members } = this.#floor
    const chances = this.#options.chances(entry.id, placeOf(0, 1 + entry.moves))
    const order = this.#barring(entry, () => this.#router.reofferOrder(request, members, at, chances))
    if (order.length > 0) this.#search(entry, order)
  }

  /** The answer of a replica that was asked. */
  answered(entry: Entry, member: Member, job: JobId, takes: boolean): void {
    this.#floor.answered(job)
    if (takes && member.alive) {
      entry.search = null
      if (entry.at < 0) this.submit(entry, member, job)
      else this.#leave(entry, member, job)
      return
    }
    if (takes) {
      this.#floor.want({ type: "withdraw", job, replica: member.index })
      // That number is spent: its withdrawal is on the way.
      if (entry.search?.firstJob === job) entry.search.firstJob = -1
    }
    this.#askNext(entry)
  }

  /** A replica that was asked has not answered in time, or is gone. */
  unanswered(entry: Entry): void {
    const search = entry.search!
    this.#floor.answered(search.job)
    if (search.firstJob === search.job) search.firstJob = -1
    this.#askNext(entry)
  }

  stopSearch(entry: Entry): void {
    if (entry.search !== null) this.#floor.answered(entry.search.job)
    entry.search = null
  }

  /** Nothing more is wanted of it anywhere. */
  end(entry: Entry): void {
    const floor = this.#floor
    this.stopSearch(entry)
    floor.waitsNoMore(entry)
    floor.entries.delete(entry.id)
    if (entry.at < 0) return
    const { state, index } = floor.members[entry.at]!
    if (state !== "down" && !entry.over) floor.want({ type: "cancel", job: entry.job, replica: index })
    this.detach(entry)
  }

  fail(entry: Entry, reason: FailReason): void {
    this.end(entry)
    this.#floor.want({ type: "fail", id: entry.id, reason })
  }

  /** It is not where it was. */
  detach(entry: Entry): void {
    if (entry.at < 0) return
    const member = this.#floor.members[entry.at]!
    const tried = member.trial.size > 0
    this.#floor.take(entry)
    if (tried && member.trial.size === 0) this.retry()
    else if (member.entries.size === 0) this.retry(this.#floor.apart)
  }

  /** With those replicas left out that would not have it just now and, if it is a suspect, those that have more suspects
   * than others. */
  #barring<T>(entry: Entry, ask: () => T): T {
    const { members, nowUs } = this.#floor
    const { avoid, suspect } = entry
    const barred: Member[] = []
    const bar = (member: Member) => {
      member.barred = true
      barred.push(member)
    }
    for (const [index, untilUs] of avoid ?? []) {
      if (untilUs <= nowUs) avoid!.delete(index)
      else bar(members[index]!)
    }
    if (suspect.deaths > 0) {
      const open = members.filter(({ alive }) => alive)
      const least = Math.min(...open.map(({ suspects }) => suspects))
      for (const member of open) if (member.suspects > least) bar(member)
    }
    const answer = ask()
    for (const member of barred) member.barred = false
    return answer
  }

  /** A request that was there at two deaths gets a replica to itself, or shares it with few of its kind. False when it has
   * waited for one long enough. */
  #tryApart(entry: Entry): boolean {
    const { members, nowUs } = this.#floor
    const free = members.find((member) => isFreeFor(entry, member))
    if (free !== undefined) {
      entry.trialSinceUs = -1
      this.submit(entry, free, this.#floor.newJob())
      free.trial.add(entry)
      return true
    }
    if (entry.trialSinceUs < 0) entry.trialSinceUs = nowUs
    const waited = nowUs - entry.trialSinceUs >= this.#options.times.trialWaitUs
    if (waited && !entry.suspect.dangerous && members.some(({ alive }) => alive)) return false
    this.#wait(entry)
    return true
  }

  #wait(entry: Entry): void {
    const { members, nowUs, waiting } = this.#floor
    const refused = entry.full && entry.losses === 0 && !entry.begun && members.some(({ usable }) => usable)
    if (refused || entry.onPromise || waiting.size >= this.#options.mostWaiting) this.fail(entry, "full")
    else if (nowUs >= entry.giveUpUs || !this.#hopes(entry)) this.fail(entry, "noReplica")
    else this.#floor.wait(entry, Math.min(entry.giveUpUs, nowUs + this.#options.times.avoidUs))
  }

  /** Some replica is there, or may be in its time. */
  #hopes({ giveUpUs }: Entry): boolean {
    const { members, nowUs } = this.#floor
    return members.length === 0 || members.some((member) => member.mayServeBy(giveUpUs, nowUs))
  }

  #search(entry: Entry, order: readonly number[]): void {
    entry.search = { order, next: 0, job: -1, deadlineUs: Infinity, firstJob: -1 }
    this.#askNext(entry)
  }

  #askNext(entry: Entry): void {
    const search = entry.search!
    const { members } = this.#floor
    while (search.next < search.order.length) {
      const member = members[search.order[search.next++]!]!
      if (!member.alive) continue
      this.#ask(entry, member)
      return
    }
    entry.search = null
    // Turned down where it is, and everywhere else: it stays.
    if (entry.at >= 0) return
    if (entry.onPromise) this.fail(entry, "full")
    else this.#takeUnpromised(entry, search.order, search.firstJob)
  }

  /** None promises: one gets it all the same, and may still promote it. */
  #takeUnpromised(entry: Entry, order: readonly number[], firstJob: JobId): void {
    const { members } = this.#floor
    const chances = this.#options.chances(entry.id, placeOf(entry.places - 1, 0))
    const index = this.#barring(entry, () => this.#router.otherwise(entry.request, members, order, chances))
    if (index < 0) this.place(entry)
    else {
      const asked = index === order[0] && firstJob >= 0
      this.submit(entry, members[index]!, asked ? firstJob : this.#floor.newJob())
    }
  }

  #ask(entry: Entry, { index }: Member): void {
    const floor = this.#floor
    const search = entry.search!
    const patienceUs = (entry.giveUpUs - entry.arrivedUs) / 10
    const withinUs = Math.max(1, Math.round(Math.min(this.#options.times.askUs, patienceUs)))
    search.job = floor.newJob()
    search.deadlineUs = floor.nowUs + withinUs
    if (search.next === 1) search.firstJob = search.job
    floor.ask(entry, floor.members[index]!, search.job)
    floor.arm(entry, search.deadlineUs)
    const { job, deadlineUs } = search
    floor.want({ type: "ask", job, id: entry.id, replica: index, deadlineUs })
  }

  /** Another replica promises it: it goes there when it is given up here. */
  #leave(entry: Entry, { index }: Member, job: JobId): void {
    const askAgainUs = this.#floor.nowUs + this.#options.times.withdrawUs
    entry.leaving = { to: index, job, askAgainUs, asked: 1 }
    this.#floor.arm(entry, askAgainUs)
    this.#floor.withdraw(entry)
  }
}

/** Nothing is there, or only suspects, and not too many of them. */
function isFreeFor({ suspect }: Entry, { usable, entries, trial }: Member): boolean {
  if (!usable || entries.size !== trial.size) return false
  return [...trial].every((other) => trial.size < Math.min(suspect.groupSize, other.suspect.groupSize))
}

/** Streams that have begun first, then in order of arrival. */
export function inOrder(entries: readonly Entry[]): Entry[] {
  return [...entries].sort((a, b) => +b.begun - +a.begun || a.arrivedUs - b.arrivedUs || a.id - b.id)
}

/** Number of a draw: of the first placing, of those for the SLO's sake, of those after losses. */
function placeOf(placing: number, moves: number): number {
  return placing === 0 ? moves : 1000 + placing
}
