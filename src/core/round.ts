/** Events of one round may come in any order, so what one of them undoes may come after it. Kept until the round's poll:
 * cancellations of requests that are yet to arrive, and requests that a step's result has handed off. */
import type { FinishReason, RequestId } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

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
  /** The request, if it was handed off in this round: nothing of it has left yet. */
  takeBack(id: RequestId): LiveRequest | undefined {
    const request = this.#handedOff.get(id)
    this.#handedOff.delete(id)
    return request
  }

  over(): void {
    this.#ends.clear()
    this.#handedOff.clear()
  }
}
