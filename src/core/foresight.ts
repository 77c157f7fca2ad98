/** Requests as they will be when what is in flight has landed: every item that samples yields its token, all drafts are
 * accepted, nothing stops by itself. Between `begin` and `end` their own fields say so, for a decision to be made on; nothing
 * is judged by it. */
import type { Airborne } from "./flight.ts"
import type { KvAccount } from "./kv/account.ts"
import type { LiveRequest } from "./request.ts"

const NONE: ReadonlySet<LiveRequest> = new Set()

export class Foresight {
  readonly #kv: KvAccount
  /** A request leaves with its first token. */
  readonly #prefillOnly: boolean
  /** See ReplicaConfig. */
  readonly #tokenLag: number
  #foreseen: LiveRequest[] = []
  #line: LiveRequest[] = []
  #leftOut: LiveRequest[] = []

  constructor(kv: KvAccount, prefillOnly: boolean, tokenLag = 0) {
    this.#kv = kv
    this.#prefillOnly = prefillOnly
    this.#tokenLag = tokenLag
  }

  /** Those of `line` that a batch after those in flight could carry; `later`: or one after that, when grammars are compiled and what
   * is in the air has landed. */
  begin(
    flight: readonly Airborne[],
    line: readonly LiveRequest[],
    nowUs: number,
    later = false,
  ): readonly LiveRequest[] {
    for (const batch of flight) if (!batch.failed) this.#land(batch, Math.max(nowUs, batch.endsUs))
    const unknown = later ? NONE : this.#unknown(flight)
    this.#line.length = 0
    for (const request of line) {
      const canRun = later || (this.#canRun(request) && !unknown.has(request))
      if (this.#goesOn(request) && canRun) this.#line.push(request)
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
      // Less than nothing: what becomes of the item is not known.
      if (request === undefined || request.gone || preemptions[i]! < 0) continue
      if (!request.foreseen) this.#foreseen.push(request)
      // Where its KV is lost meanwhile its token comes all the same: what runs after it counts on that.
      request.foresee(items[i]!, atUs, request.preemptions === preemptions[i])
    }
  }

  /** Those whose next token the engine will not know when it schedules. */
  #unknown(flight: readonly Airborne[]): ReadonlySet<LiveRequest> {
    if (this.#tokenLag === 0) return NONE
    const unknown = new Set<LiveRequest>()
    for (const { items, requests } of flight.slice(-this.#tokenLag))
      for (const [at, request] of requests.entries())
        if (request !== undefined && items[at]!.sample) unknown.add(request)
    return unknown
  }

  #canRun({ id, waits, inAir }: LiveRequest): boolean {
    // What it lost is computed anew when its tokens in the air are known.
    return !waits && (inAir === 0 || this.#kv.holds(id))
  }

  /** What is in the air does not surely end it. */
  #goesOn({ inAir, foreseen, surelyOutput, output, spec }: LiveRequest): boolean {
    return inAir === 0 || (foreseen ? surelyOutput : output) < (this.#prefillOnly ? 1 : spec.maxOutputTokens)
  }

  /** What policies remember of earlier decisions must not bring it back. */
  #leaveOut(request: LiveRequest): void {
    request.gone = true
    this.#leftOut.push(request)
  }
}
