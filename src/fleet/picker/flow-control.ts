/** Requests between their arrival and their endpoint: sent at once where one takes them, else held, the earliest
 * deadline first, within bounds; those that wait too long, or that there is no room for, are told when to come back. */

import { Comebacks } from "../../replica/comebacks.ts"
import { LeavePace } from "../../replica/leave-pace.ts"
import type { Ask } from "./ask.ts"
import type { Chooser, Endpoint, Sent } from "./chooser.ts"
import { Ejections } from "./ejection.ts"
import type { DropReason } from "./messages.ts"

export interface FlowOptions {
  /** Most requests held at once, and what bodies may take in memory, those that are still coming included, bytes. */
  mostHeld: number
  mostHeldBytes: number
  /** Longest hold, µs. */
  longestHoldUs: number
  /** What becomes of a held request whose TTFT is over: it goes on as best effort, or is refused. */
  late: "send" | "shed"
}

export type Verdict =
  /** `endpoints`: the best first, then where a retry may go. */
  | { kind: "send"; endpoints: readonly Endpoint[]; sent: Sent; heldUs: number; dueInUs: number }
  | { kind: "drop"; reason: DropReason; retryMs: number; heldUs: number }

/** A request that waits. */
export interface Held {
  /** Its client has gone. */
  cancel(): void
}

interface Waiting extends Held {
  ask: Ask
  /** The gateway's word on where it may go; null: none. */
  subset: readonly Endpoint[] | null
  /** First token due, µs; infinite without a TTFT. */
  dueUs: number
  /** Its SLO may still be kept. */
  hopeful: boolean
  settle: (verdict: Verdict) => void
}

/** Held requests that no endpoint took, after which the others are not asked for: they are less urgent. */
const MOST_UNWILLING = 8
/** Held requests are asked for again at least so often: what a twin predicts changes as time goes by. */
const ASK_AGAIN_MS = 20
/** A round of asking takes no longer, and rests as long before the next, µs: twins take a fraction of a millisecond each,
 * and requests and answers that pass would wait for all of them. */
const ASKING_US = 2_000
const REST_US = 5_000

/** Without an endpoint, or without this picker: when there may be another. */
export const ELSEWHERE_MS = 1000

/** Endpoints known by the gateway's word alone. */
const MOST_LEARNT = 1024

export class FlowControl {
  readonly #options: FlowOptions
  readonly #chooser: Chooser
  readonly #nowUs: () => number
  readonly #open: boolean
  /** By deadline, then by arrival. */
  #line: Waiting[] = []
  #heldBytes = 0
  readonly #ofTenant = new Map<string, number>()
  /** Of those that were held. */
  readonly #pace: LeavePace
  readonly #comebacks = new Comebacks()
  readonly #ejections = new Ejections()
  #endpoints: readonly Endpoint[] = []
  #known: ReadonlySet<Endpoint> = new Set()
  #turn = 0
  #timer: NodeJS.Timeout | null = null
  #soon: NodeJS.Timeout | null = null
  #askedUs = Number.NEGATIVE_INFINITY
  /** Of bodies that are still coming, bytes. */
  #comingBytes = 0

  /** `open`: the endpoints are those that subsets name. */
  constructor(options: FlowOptions, chooser: Chooser, nowUs: () => number, open = false) {
    this.#options = options
    this.#open = open
    this.#chooser = chooser
    this.#nowUs = nowUs
    this.#pace = new LeavePace({ most: () => 1, atOnce: () => options.mostHeld })
    chooser.onRoom = () => this.#askSoon()
  }

  get held(): number {
    return this.#line.length
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  /** Endpoints left out for a while. */
  get ejected(): number {
    return this.#ejections.count(this.#nowUs())
  }

  get endpoints(): readonly Endpoint[] {
    return this.#endpoints
  }

  /** Any endpoint, each in turn, for a request that asks for no tokens; null: there is none. */
  any(subset: readonly Endpoint[] | null): Endpoint | null {
    if (subset !== null) this.#learn(subset)
    const among = this.#ejections.left(this.#eligible(subset), this.#nowUs())
    return among.length === 0 ? null : among[this.#turn++ % among.length]!
  }

  /** More of a body has come, or, if it is negative, is held or gone. False: there is no memory for it. */
  coming(bytes: number): boolean {
    if (bytes > 0 && this.#comingBytes + this.#heldBytes + bytes > this.#options.mostHeldBytes) return false
    this.#comingBytes += bytes
    return true
  }

  /** Of a request that is refused before it is placed. */
  refused(heldUs: number): Extract<Verdict, { kind: "drop" }> {
    return { kind: "drop", reason: "rejected-saturated", retryMs: this.#turnMs(this.#nowUs()), heldUs }
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    this.#endpoints = endpoints
    this.#known = new Set(endpoints)
    this.#ejections.keep(this.#known)
    this.#chooser.setEndpoints(endpoints)
    this.#askSoon()
  }

  /** Settles at once or later, exactly once, unless it is cancelled before. `subset` null: any endpoint. */
  place(ask: Ask, subset: readonly Endpoint[] | null, settle: (verdict: Verdict) => void): Held | null {
    const nowUs = this.#nowUs()
    if (subset !== null) this.#learn(subset)
    const among = this.#eligible(subset)
    const dueUs = this.#dueUs(ask, among)
    const hopeful = ask.slo.tier === "slo" && !this.#chooser.hopeless(ask, dueUs, among, nowUs)
    const waiting: Waiting = { ask, subset, dueUs, hopeful, settle, cancel: () => {} }
    waiting.cancel = () => {
      if (this.#remove(waiting)) this.#askSoon()
    }
    if (among.length === 0) {
      settle(this.#drop(ask, "rejected-no-endpoints", nowUs))
      return null
    }
    // What is held and due before it has been asked for and found no room: it would find none either, or take theirs.
    const first = this.#line[0]
    if ((first === undefined || before(waiting, first)) && this.#trySend(waiting, nowUs)) return null
    this.#hold(waiting, nowUs)
    return waiting
  }

  /** Nothing more is sent: everything held is dropped. */
  close(): void {
    this.#stopAsking()
    const nowUs = this.#nowUs()
    for (const waiting of [...this.#line]) this.#refuse(waiting, "rejected-shutting-down", nowUs)
    this.#chooser.onRoom = null
  }

  /** The oldest are forgotten: what a gateway names changes for ever. */
  #learn(subset: readonly Endpoint[]): void {
    const fresh = this.#open ? subset.filter((endpoint) => !this.#known.has(endpoint)) : []
    if (fresh.length === 0) return
    this.setEndpoints([...this.#endpoints, ...fresh].slice(-MOST_LEARNT))
  }

  /** Those of a subset that there are. */
  #eligible(subset: readonly Endpoint[] | null): readonly Endpoint[] {
    return subset === null ? this.#endpoints : subset.filter((endpoint) => this.#known.has(endpoint))
  }

  #dueUs(ask: Ask, among: readonly Endpoint[]): number {
    const { slo, tier } = ask.slo
    if (tier === "bestEffort") return Number.POSITIVE_INFINITY
    const { ttftUs, ttftSlowdown } = slo
    if (ttftSlowdown === 0) return ask.arrivalUs + ttftUs
    return ask.arrivalUs + ttftSlowdown * this.#chooser.zeroLoadUs(ask, among)
  }

  #trySend(waiting: Waiting, nowUs: number): boolean {
    const { hopeful } = waiting
    const ask = hopeful ? waiting.ask : unpromised(waiting.ask)
    const among = this.#ejections.left(this.#eligible(waiting.subset), nowUs)
    const endpoints = hopeful
      ? this.#chooser.choose(ask, among, nowUs)
      : this.#chooser.anywhere(ask, among, nowUs)
    if (endpoints.length === 0) return false
    const sent = this.#watched(this.#chooser.sent(ask, endpoints[0]!, nowUs), endpoints[0]!)
    this.#remove(waiting, true)
    waiting.settle({
      ...{ kind: "send", endpoints, sent },
      heldUs: nowUs - ask.arrivalUs,
      dueInUs: waiting.dueUs - nowUs,
    })
    return true
  }

  /** With a note of how it ended: endpoints that fail are left out. */
  #watched(sent: Sent, endpoint: Endpoint): Sent {
    let at = endpoint
    return {
      servedBy: (other) => {
        at = other
        sent.servedBy(other)
      },
      tokens: (count, nowUs) => sent.tokens(count, nowUs),
      usage: (...counts) => sent.usage(...counts),
      ended: (how, nowUs) => {
        if (how === "failed") this.#ejections.failed(at, nowUs)
        else if (how === "done") this.#ejections.succeeded(at)
        sent.ended(how, nowUs)
      },
    }
  }

  #hold(waiting: Waiting, nowUs: number): void {
    this.#insert(waiting)
    const { mostHeld, mostHeldBytes } = this.#options
    while (this.#line.length > mostHeld || (this.#heldBytes > mostHeldBytes && this.#line.length > 0))
      this.#refuse(this.#victim(), "rejected-saturated", nowUs)
    if (this.#line.length > 0) this.#timer ??= setInterval(() => this.#askAgain(), ASK_AGAIN_MS)
  }

  /** Of the tenant with the most held, the one that can wait longest. */
  #victim(): Waiting {
    const most = Math.max(...this.#ofTenant.values())
    return this.#line.findLast(({ ask }) => this.#ofTenant.get(ask.tenant) === most)!
  }

  #askSoon(): void {
    if (this.#line.length === 0) return
    const restUs = this.#askedUs + REST_US - this.#nowUs()
    this.#soon ??= setTimeout(
      () => {
        this.#soon = null
        this.#askAgain()
      },
      Math.max(0, restUs / 1000),
    )
  }

  #askAgain(): void {
    const nowUs = this.#nowUs()
    this.#askedUs = nowUs
    let unwilling = 0
    for (const waiting of [...this.#line]) {
      // Those further back are less urgent: of them it is enough to see which have waited too long.
      const asked = unwilling < MOST_UNWILLING && this.#nowUs() - nowUs <= ASKING_US
      const over = asked ? this.#over(waiting, nowUs) : this.#expired(waiting, nowUs)
      if (over === "late") this.#demote(waiting)
      else if (over !== null) this.#refuse(waiting, over, nowUs)
      else if (asked && !this.#trySend(waiting, nowUs)) unwilling++
    }
    if (this.#line.length === 0) this.#stopAsking()
  }

  /** Why it is held no longer, or no longer with the hope of being on time; null: nothing has changed. */
  #over(waiting: Waiting, nowUs: number): DropReason | "late" | null {
    const { ask, dueUs, hopeful, subset } = waiting
    const among = this.#eligible(subset)
    if (among.length === 0) return "rejected-no-endpoints"
    if (this.#expired(waiting, nowUs) !== null) return "rejected-ttl-expired"
    if (!hopeful || !this.#chooser.hopeless(ask, dueUs, among, nowUs)) return null
    return this.#options.late === "shed" ? "rejected-ttl-expired" : "late"
  }

  #expired({ ask }: Waiting, nowUs: number): DropReason | null {
    return nowUs - ask.arrivalUs > this.#options.longestHoldUs ? "rejected-ttl-expired" : null
  }

  /** Its first token is late whatever happens: those that can be on time go first, also in this round. */
  #demote(waiting: Waiting): void {
    this.#remove(waiting)
    waiting.dueUs = Number.POSITIVE_INFINITY
    waiting.hopeful = false
    this.#insert(waiting)
    this.#askSoon()
  }

  #refuse(waiting: Waiting, reason: DropReason, nowUs: number): void {
    if (this.#remove(waiting)) waiting.settle(this.#drop(waiting.ask, reason, nowUs))
  }

  /** In how long one more should find room, ms. */
  #turnMs(nowUs: number): number {
    const before = Math.max(0, this.#line.length - this.#options.mostHeld)
    return this.#comebacks.turnUs(1, before, this.#pace, nowUs) / 1000
  }

  #drop(ask: Ask, reason: DropReason, nowUs: number): Verdict {
    const retryMs = hasTurn(reason) ? this.#turnMs(nowUs) : ELSEWHERE_MS
    return { kind: "drop", reason, retryMs, heldUs: nowUs - ask.arrivalUs }
  }

  #insert(waiting: Waiting): void {
    let low = 0
    let high = this.#line.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (before(waiting, this.#line[middle]!)) high = middle
      else low = middle + 1
    }
    this.#line.splice(low, 0, waiting)
    this.#count(waiting.ask, 1)
    this.#pace.changed(this.#line.length, 0, this.#nowUs())
  }

  #remove(waiting: Waiting, sent = false): boolean {
    const at = this.#line.indexOf(waiting)
    if (at < 0) return false
    this.#line.splice(at, 1)
    this.#count(waiting.ask, -1)
    this.#pace.changed(this.#line.length, sent ? 1 : 0, this.#nowUs())
    return true
  }

  #count({ tenant, bytes }: Ask, by: 1 | -1): void {
    this.#heldBytes += by * bytes
    const count = (this.#ofTenant.get(tenant) ?? 0) + by
    if (count === 0) this.#ofTenant.delete(tenant)
    else this.#ofTenant.set(tenant, count)
  }

  #stopAsking(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
    if (this.#soon !== null) clearTimeout(this.#soon)
    this.#soon = null
  }
}

/** What is dropped for this is told when its turn comes; the others all the same time. */
export function hasTurn(reason: DropReason): boolean {
  return reason === "rejected-saturated" || reason === "rejected-ttl-expired"
}

function before(a: Waiting, b: Waiting): boolean {
  if (a.dueUs !== b.dueUs) return a.dueUs < b.dueUs
  return a.ask.arrivalUs < b.ask.arrivalUs
}

/** What is late anyway is best effort to those that it is sent to, or its KV would count as a promise's. */
function unpromised(ask: Ask): Ask {
  return { ...ask, slo: { ...ask.slo, tier: "bestEffort" } }
}
