/** Places in a replica's queue. Every request has one from before its prompt is read: further choices of a request and
 * what is still being prepared count as well, so that what was accepted never finds the queue full. */
import { Tenants } from "../core/learn/tenants.ts"
import { Comebacks } from "./comebacks.ts"
import { LeavePace } from "./leave-pace.ts"

/** Places in the queue, taken for requests of one tenant to come. */
export interface Reservation {
  left: number
  readonly tenant: number
  /** Taken of a full queue: what is not promised its SLOs must not be submitted. */
  readonly onPromise: boolean
}

/** How places are asked for. `room`: where the queue has room. `promise`: in a full one also for what will be promised its SLOs.
 * `begun`: some have begun elsewhere, and what was accepted once finds no queue full. */
export type Claim = "room" | "promise" | "begun"

/** Places beyond the limit, to so many within it. */
const BEYOND = 1 / 4

export interface PlacesOptions {
  /** By tenant. */
  weights?: readonly number[]
  /** Of the queue's requests so many can run at once; default: all. */
  running?: () => number
  /** See LeavePaceOptions. */
  slowdown?: (few: number, many: number) => number
  nowUs?: () => number
}

export class Places {
  /** Requests that the queue takes of one tenant alone; with several it is a little more. */
  limit: number
  readonly #tenants: Tenants
  readonly #nowUs: () => number
  readonly #pace: LeavePace
  readonly #comebacks = new Comebacks()
  #taken = 0
  #whenEmpty: (() => void)[] = []

  constructor(limit: number, options: PlacesOptions = {}) {
    this.limit = limit
    const { weights = [], running, slowdown, nowUs = () => performance.now() * 1000 } = options
    this.#tenants = new Tenants(weights)
    this.#nowUs = nowUs
    const most = () => Math.min(this.limit, running?.() ?? Number.POSITIVE_INFINITY)
    this.#pace = new LeavePace({ most, ...(slowdown && { slowdown }) })
  }

  /** Another length of the queue, and other weights, from now on. What has a place keeps it. */
  renew(limit: number, weights: readonly number[]): void {
    this.limit = limit
    this.#tenants.reweigh(weights)
  }

  get taken(): number {
    return this.#taken
  }

  /** In how long a request that is refused so many places should find them, ms. It counts as told: the next one's turn is after
   * it. */
  turnMs(count: number): number {
    const nowUs = this.#nowUs()
    const before = Math.max(0, this.#taken - this.limit)
    return this.#comebacks.turnUs(count, before, this.#pace, nowUs) / 1000
  }

  /** Places that `tenant` has. */
  takenBy(tenant: number): number {
    return this.#tenants.liveOf(tenant)
  }

  /** Places that are `tenant`'s where others want them as well. */
  shareOf(tenant: number): number {
    return Math.ceil(this.#tenants.queueShare(tenant, this.limit))
  }

  /** More than one tenant has any. */
  get shared(): boolean {
    return this.#tenants.several
  }

  /** Whether `take` would answer true. */
  hasRoom(count: number, tenant: number): boolean {
    return this.#tenants.hasPlace(tenant, this.#taken, this.limit, count)
  }

  /** So many at once or, answering false, none. `always`: also where there is no room. */
  take(count: number, tenant: number, always = false): boolean {
    if (!always && !this.hasRoom(count, tenant)) return false
    for (let i = 0; i < count; i++) this.#tenants.arrived({ tenant })
    this.#taken += count
    this.#pace.changed(this.#taken, 0, this.#nowUs())
    return true
  }

  /** A full queue may be full of requests that only wait: one that is promised its SLOs does not wait behind them. Whether
   * there is room for so many of that kind. */
  hasRoomBeyond(count: number): boolean {
    return this.#taken + count <= this.limit + Math.floor(this.limit * BEYOND)
  }

  /** Likewise `take`. Whether they are promised is to be asked before they are submitted. */
  takeBeyond(count: number, tenant: number): boolean {
    return this.hasRoomBeyond(count) && this.take(count, tenant, true)
  }

  /** `used`: by requests that were in the queue; others say nothing of how soon it has room. */
  giveBack(count: number, tenant: number, used = true): void {
    for (let i = 0; i < count; i++) this.#tenants.left({ tenant })
    this.#taken -= count
    this.#pace.changed(this.#taken, used ? count : 0, this.#nowUs())
    if (this.#taken === 0) for (const resolve of this.#whenEmpty.splice(0)) resolve()
  }

  /** Resolves once none is taken. */
  empty(): Promise<void> {
    return this.#taken === 0 ? Promise.resolve() : new Promise((resolve) => this.#whenEmpty.push(resolve))
  }
}
