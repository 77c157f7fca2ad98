/** Which replica gets an arrival (docs/design.md, Router). Pure: what it knows of replicas is handed in and may be
 * stale, and so are the random numbers it needs. */
import type { RequestSpec } from "../core/protocol.ts"
import { ROUTERS, type RouterKind } from "./routers.ts"
import type { Chances, Target } from "./target.ts"

export interface RouterOptions {
  /** How the replica is chosen. Default `offer`. */
  kind?: RouterKind
  /** Most replicas asked whether they could keep the request's SLOs. Default 3. */
  hops?: number
  /** A session's next round goes where the last one ran: elsewhere all of the session would be computed again, even
   * by a replica that can promise it. Default off. */
  affinity?: boolean
  /** Offer a request that is turned down later to other replicas, at most so many times. Default 0. */
  reoffers?: number
}

/** Sessions remembered for affinity; the oldest are forgotten. */
const MOST_SESSIONS = 100_000

export class Router {
  readonly kind: RouterKind
  readonly hops: number
  readonly affinity: boolean
  readonly reoffers: number
  #turn = 0
  #homes = new Map<number, number>()

  constructor(options: RouterOptions = {}) {
    this.kind = options.kind ?? "offer"
    this.hops = Math.max(1, options.hops ?? 3)
    this.affinity = options.affinity ?? false
    this.reoffers = options.reoffers ?? 0
  }

  /** Index of the replica for `request`; -1 when none is alive. A request that is turned down everywhere
   * goes to the first replica asked, whose planner may still promote it. */
  route(request: RequestSpec, targets: readonly Target[], nowUs: number, chances: Chances): number {
    const alive: number[] = []
    for (let i = 0; i < targets.length; i++) if (targets[i]!.alive) alive.push(i)
    if (alive.length === 0) return -1
    const home = this.affinity && request.session >= 0 ? this.#homes.get(request.session) : undefined
    const atHome = home !== undefined && targets[home]?.alive === true
    const chosen = atHome
      ? home
      : alive.length === 1
        ? alive[0]!
        : ROUTERS[this.kind]({
            ...{ request, targets, alive, nowUs, chances, hops: this.hops },
            turn: this.#turn++,
          })
    if (this.affinity && request.session >= 0) this.#remember(request.session, chosen)
    return chosen
  }

  /** A replica other than `from` that takes a request turned down there; -1 when none of `hops` does. */
  reoffer(request: RequestSpec, targets: readonly Target[], from: number, nowUs: number): number {
    const count = targets.length
    const start = this.#turn++
    for (let i = 0, asked = 0; i < count && asked < this.hops; i++) {
      const index = (start + i) % count
      if (index === from || !targets[index]!.alive) continue
      asked++
      if (!targets[index]!.offer(request, nowUs)) continue
      if (this.affinity && request.session >= 0) this.#remember(request.session, index)
      return index
    }
    return -1
  }

  #remember(session: number, replica: number): void {
    this.#homes.delete(session)
    this.#homes.set(session, replica)
    if (this.#homes.size <= MOST_SESSIONS) return
    for (const oldest of this.#homes.keys()) return void this.#homes.delete(oldest)
  }
}
