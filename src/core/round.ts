/** Events of one round may come in any order, so what one of them undoes may come after it. Kept until the round's poll:
 * cancellations of requests that are yet to arrive, and requests that a step's result has handed off. */
import type { Effect, Event, FinishReason, RequestId } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

const RANK: Record<Event["type"], number> = {
  stepDone: 0,
  stepFailed: 0,
  ran: 0,
  kvLost: 0,
  kvFree: 1,
  costModel: 1,
  tenantWeights: 1,
  renews: 1,
  cancelled: 2,
  arrived: 3,
  grammarReady: 4,
  woke: 4,
}

/** Order of events of the same microsecond: results, what was learnt of them, cancellations (the room that they leave is for
 * arrivals), arrivals, timers. No event is lost in another order. */
export function eventRank(event: Event): number {
  return RANK[event.type]
}

export class Round {
  #ends = new Map<RequestId, FinishReason>()
  #handedOff = new Map<RequestId, LiveRequest>()

  /** It is to end, but is not here: it may arrive in this very round. */
  endsOnArrival(id: RequestId, reason: FinishReason): void {
    this.#ends.set(id, reason)
  }
  /** Why a request that arrives has ended already, if it has. */
  endOf(id: RequestId): FinishReason | undefined {
    return this.#ends.get(id)
  }

  handedOff(request: LiveRequest): void {
    this.#handedOff.set(request.id, request)
  }
  /** The request, if it was handed off in this round: nothing of it has left yet, and the effect goes. */
  takeBack(id: RequestId, effects: Effect[]): LiveRequest | undefined {
    const request = this.#handedOff.get(id)
    if (!this.#handedOff.delete(id)) return undefined
    const at = effects.findIndex((effect) => effect.type === "handedOff" && effect.id === id)
    effects.splice(at, 1)
    return request
  }

  over(): void {
    this.#ends.clear()
    this.#handedOff.clear()
  }
}
