/** Requests as they will be when what is in flight has landed: every item that samples yields its token, all drafts are
 * accepted, nothing stops by itself. Between `begin` and `end` their own fields say so, for a decision to be made on; nothing
 * is judged by it. */
import type { Airborne } from "./flight.ts"
import type { KvAccount } from "./kv/account.ts"
import type { LiveRequest } from "./request.ts"

export class Foresight {
  readonly #kv: KvAccount
  /** A request leaves with its first token. */
  readonly #prefillOnly: boolean
  #foreseen: LiveRequest[] = []
  #line: LiveRequest[] = []
  #leftOut: LiveRequest[] = []

  constructor(kv: KvAccount, prefillOnly: boolean) {
    this.#kv = kv
    this.#prefillOnly = prefillOnly
  }

  /** Those of `line` that a batch after those in flight could carry. */
  begin(flight: readonly Airborne[], line: readonly LiveRequest[], nowUs: number): readonly LiveRequest[] {
    for (const batch of flight) if (!batch.failed) this.#land(batch, Math.max(nowUs, batch.endsUs))
    this.#line.length = 0
    for (const request of line) {
      if (this.#canRun(request)) this.#line.push(request)
      else this.#leaveOut(request)
    }
    return this.#line
  }

  /** All as it is again, but for the KV that the decision has taken. */
  end(): void {
    for (const request of this.#foreseen) request.recall()
    this.#foreseen.length = 0
    for (const request of this.#leftOut) request.gone = false
    this.#leftOut.length = 0
  }

  #land({ items, requests, preemptions }: Airborne, atUs: number): void {
    for (let i = 0; i < items.length; i++) {
      const request = requests[i]
      if (request === undefined || request.gone || request.preemptions !== preemptions[i]) continue
      if (!request.foreseen) this.#foreseen.push(request)
      request.foresee(items[i]!, atUs)
    }
  }

  #canRun(request: LiveRequest): boolean {
    if (request.waits) return false
    if (request.inAir === 0) return true
    // What it lost is computed anew when its tokens in the air are known.
    if (!this.#kv.holds(request.id)) return false
    const { foreseen, surelyOutput, output, spec } = request
    return (foreseen ? surelyOutput : output) < (this.#prefillOnly ? 1 : spec.maxOutputTokens)
  }

  /** What policies remember of earlier decisions must not bring it back. */
  #leaveOut(request: LiveRequest): void {
    request.gone = true
    this.#leftOut.push(request)
  }
}
