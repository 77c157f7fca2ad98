/** The live requests of a replica, in order of arrival: how they enter it, lose their KV and leave. */
import type { Flight } from "./flight.ts"
import type { KvAccount } from "./kv/account.ts"
import type { Learnt } from "./learn/learnt.ts"
import type { Effect, FinishReason, RequestId } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

export interface LineParts {
  kv: KvAccount
  learnt: Learnt
  flight: Flight
  /** See Policy. */
  keepsSessions: boolean
  tell: (effect: Effect) => void
}

export class Line {
  /** In order of arrival; what policies see. */
  readonly requests: LiveRequest[] = []
  readonly #parts: LineParts
  #byId = new Map<RequestId, LiveRequest>()
  /** Requests that may not run yet. */
  #waiting = 0

  constructor(parts: LineParts) {
    this.#parts = parts
  }

  get(id: RequestId): LiveRequest | undefined {
    return this.#byId.get(id)
  }
  get size(): number {
    return this.#byId.size
  }
  /** None of them has to wait for its grammar. */
  get allMayRun(): boolean {
    return this.#waiting === 0
  }

  enter(request: LiveRequest): void {
    this.#byId.set(request.id, request)
    this.requests.push(request)
    this.#parts.learnt.tenants.arrived(request)
    if (request.waits) this.#waiting++
  }

  /** Its grammar is compiled. */
  ready(id: RequestId): void {
    const request = this.#byId.get(id)
    if (request?.waits) this.#waiting--
    request?.account?.ready()
    if (request !== undefined) request.waits = false
  }

  /** It goes, without a word. */
  remove(request: LiveRequest): void {
    const { tenants } = this.#parts.learnt
    request.gone = true
    tenants.left(request)
    if (request.output > 0) tenants.ended(request.known + request.output)
    if (request.waits) this.#waiting--
    this.#byId.delete(request.id)
    this.requests.splice(this.requests.indexOf(request), 1)
  }

  end(request: LiveRequest, reason: FinishReason, nowUs: number): void {
    const { learnt, kv, keepsSessions, tell } = this.#parts
    const { id, spec } = request
    this.remove(request)
    request.account?.waited(nowUs)
    const attainable = reason === "stop" || reason === "length"
    const outcome = request.outcome(nowUs, attainable && spec.tier === "slo")
    const comesBack = learnt.ended(request, reason, outcome)
    if (request.output > 0) tell({ type: "stageDone", id, outcome: request.stage })
    tell({ type: "finished", id, reason, outcome })
    if (!comesBack && keepsSessions) kv.wontReturn(id)
    if (request.startedUs >= 0) this.release(id)
  }

  /** The KV of a request that has left is not needed any more. The engine may be computing it right now: it is free at the
   * first landing after which no batch in flight carries it, or when the engine that owns it counts it as free. */
  release(id: RequestId): void {
    const { flight, kv } = this.#parts
    if (flight.up && !kv.isCounted) {
      flight.left(id)
      return
    }
    const left = kv.blocksOf(id)
    kv.end(id)
    flight.freed(id, left, kv)
  }

  /** After a landing. */
  releaseLeft(): void {
    for (const id of this.#parts.flight.takeLeft()) this.#parts.kv.end(id)
  }

  /** A live request is to lose its KV; `itself`: the engine has dropped it by itself. */
  loseKv(request: LiveRequest, itself = false): void {
    const { kv, tell } = this.#parts
    const { id } = request
    if (!kv.holds(id)) return
    if (itself) kv.lose(id)
    else kv.drop(id)
    request.account?.loses(request.computed)
    request.computed = 0
    request.preemptions++
    tell({ type: "preempted", id })
  }
}
