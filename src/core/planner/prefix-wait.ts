/** Requests that begin alike and come together: the second waits while the first computes what both begin with, and then
 * shares it. Computing it twice would take longer, for both. */
import type { LiveRequest } from "../request.ts"
import type { PlanningContext } from "./context.ts"
import { commonBlocks } from "./prefix-groups.ts"

/** A prefix that another request is computing. */
export interface Awaited {
  by: LiveRequest
  /** Tokens that both begin with. */
  tokens: number
}

export class PrefixWait {
  /** Requests whose prompt is being computed. */
  #computing: LiveRequest[] = []

  /** Of these requests, those whose prompt is under way can be waited for. */
  begin(...lists: (readonly LiveRequest[])[]): void {
    this.#computing.length = 0
    for (const list of lists) {
      for (const request of list)
        if (request.computed > 0 && !request.decoding && request.prefix.length > 0)
          this.#computing.push(request)
    }
  }

  /** A request's first chunk is in the batch. */
  started(request: LiveRequest): void {
    this.#computing.push(request)
  }

  /** What `request`, which has not begun, would better wait for; null where it may begin. */
  for(request: LiveRequest, context: PlanningContext): Awaited | null {
    if (this.#computing.length === 0 || request.computed > 0) return null
    const { blockTokens } = context.limits
    const block = context.startOf(request) / blockTokens
    const missing = request.prefix[block]
    if (missing === undefined) return null
    for (const by of this.#computing) {
      if (by === request || by.prefix[block] !== missing) continue
      const tokens = commonBlocks(by, request, block, blockTokens) * blockTokens
      // What is in place but the end of a block is of no use to another.
      if (tokens > block * blockTokens && tokens > by.computed) return { by, tokens }
    }
    return null
  }
}
