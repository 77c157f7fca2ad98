/** Which replica gets an arrival (docs/design.md, Router). Pure: what it knows of replicas is handed in and may be
 * stale, and so are the random numbers it needs. */
import type { RequestSpec } from "../core/protocol.ts"
import { inTurn } from "./living.ts"
import { PrefixMap, type PrefixMapOptions } from "./prefix-map.ts"
import { Recent } from "./recent.ts"
import { type Choice, ROUTERS, type RouterKind, type Routing } from "./routers.ts"
import type { Chances, ReplicaView, Routed, Target } from "./target.ts"

export interface RouterOptions extends PrefixMapOptions {
  /** How the replica is chosen. Default `prefix-offer`. */
  kind?: RouterKind
  /** Most replicas asked whether they could keep the request's SLOs. Default 3. */
  hops?: number
  /** A session's next round goes where the last one ran, unasked: elsewhere all of the session would be computed again, even
   * by a replica that can promise it. Default off. `prefix-offer` weighs it itself. */
  affinity?: boolean
  /** Offer a request that is turned down later to other replicas, at most so many times. Default 0. */
  reoffers?: number
}

export class Router {
  readonly kind: RouterKind
  readonly hops: number
  readonly affinity: boolean
  readonly reoffers: number
  #turn = 0
  /** Of requests turned down, apart: taken from the same, each arrival with one re-offer would leave the next arrival the same
   * first of two replicas, and what none promises would all go there. */
  #reofferTurn = 0
  #prefixes: PrefixMap
  #recent = new Recent()

  constructor(options: RouterOptions = {}) {
    this.kind = options.kind ?? "prefix-offer"
    this.hops = Math.max(1, options.hops ?? 3)
    this.affinity = options.affinity ?? false
    this.reoffers = options.reoffers ?? 0
    this.#prefixes = new PrefixMap(options)
  }

  /** In which order to ask replicas whether they can keep the request's SLOs: at most `hops` indices; none when all are lost.
   * It goes to the first that promises, else to the one that `otherwise` names, whose planner may still promote it. One alone
   * need not be asked. */
  order(request: Routed, targets: readonly ReplicaView[], chances: Chances): number[] {
    const home = this.affinity ? this.#prefixes.homeOf(request.session) : -1
    if (home >= 0 && targets[home]?.alive) return [home]
    const turn = turnOf(targets, this.#turn)
    this.#turn = turn + 1
    return ROUTERS[this.kind].order(this.#choice(request, targets, -1, chances, turn))
  }

  /** None of those that were `asked` promises: the one that gets the request; -1 when all of them are lost by now. */
  otherwise(
    request: Routed,
    targets: readonly ReplicaView[],
    asked: readonly number[],
    chances: Chances,
  ): number {
    const first = asked.find((index) => targets[index]!.alive) ?? -1
    const routing: Routing = ROUTERS[this.kind]
    if (first < 0 || routing.otherwise === undefined) return first
    const found = routing.otherwise(this.#choice(request, targets, -1, chances, this.#turn))
    return found < 0 ? first : found
  }

  /** As `order`, for a request that was turned down by `from`: the others. Only one that promises gets it. */
  reofferOrder(request: Routed, targets: readonly ReplicaView[], from: number, chances: Chances): number[] {
    const kind = ROUTERS[this.kind]
    const routing = kind.asks ? kind : ROUTERS.offer
    const turn = turnOf(targets, this.#reofferTurn)
    this.#reofferTurn = turn + 1
    return routing.order(this.#choice(request, targets, from, chances, turn))
  }

  /** The request was given to this replica. */
  placed(request: Routed, targets: readonly ReplicaView[], index: number, nowUs: number): void {
    const byPrefix = ROUTERS[this.kind].byPrefix
    const snapshot = targets[index]!.snapshot()
    const known = byPrefix ? this.#prefixes.known(request, index, snapshot) : 0
    this.#recent.note(index, request.promptTokens - known, nowUs)
    if (this.affinity || byPrefix) this.#prefixes.sent(request, index, snapshot)
  }

  /** Such a request was given to it some time ago: it is load no more. */
  wasPlaced(request: Routed, targets: readonly ReplicaView[], index: number): void {
    if (this.affinity || ROUTERS[this.kind].byPrefix)
      this.#prefixes.sent(request, index, targets[index]!.snapshot())
  }

  /** The replica is lost or starts afresh: nothing that was sent there is there any more. */
  forget(index: number): void {
    this.#recent.forget(index)
    this.#prefixes.forget(index)
  }

  /** Where all replicas answer at once: index of the one that gets the request; -1 when none is alive. */
  route(request: RequestSpec, targets: readonly Target[], nowUs: number, chances: Chances): number {
    const order = this.order(request, targets, chances)
    const chosen = order.length < 2 ? order[0] : this.#firstToPromise(order, request, targets, nowUs)
    const index = chosen ?? this.otherwise(request, targets, order, chances)
    if (index >= 0) this.placed(request, targets, index, nowUs)
    return index
  }

  /** A replica other than `from` that takes a request turned down there; -1 when none of `hops` does. */
  reoffer(
    request: RequestSpec,
    targets: readonly Target[],
    from: number,
    nowUs: number,
    chances: Chances,
  ): number {
    const order = this.reofferOrder(request, targets, from, chances)
    const index = this.#firstToPromise(order, request, targets, nowUs) ?? -1
    if (index >= 0) this.placed(request, targets, index, nowUs)
    return index
  }

  #choice(
    request: Routed,
    targets: readonly ReplicaView[],
    except: number,
    chances: Chances,
    turn: number,
  ): Choice {
    const parts = { prefixes: this.#prefixes, recent: this.#recent, hops: this.hops }
    return { request, targets, except, chances, turn, ...parts }
  }

  #firstToPromise(
    order: readonly number[],
    request: RequestSpec,
    targets: readonly Target[],
    nowUs: number,
  ): number | undefined {
    return order.find((index) => targets[index]!.offer(request, nowUs))
  }
}

/** Lost replicas have none: else what follows them would have two. */
function turnOf(targets: readonly ReplicaView[], from: number): number {
  return inTurn(targets, from, 1, -1)[0] ?? 0
}
