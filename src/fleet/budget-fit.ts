/** How many tokens an engine computes in a step, which few engines tell: learnt from how many tokens another stream has while
 * a prompt is computed, for it has one a step. Counts alone, no times: a network may bring tokens together. */
import type { RequestId } from "../core/protocol.ts"
import type { Sent } from "./sent.ts"

/** What one prompt says: the budget is between these. */
interface Bounds {
  least: number
  most: number
}

/** Prompts remembered; asked at least, to believe anything else than is believed. */
const [KEPT, ENOUGH] = [24, 8]
/** Another budget is believed when it agrees with so large a share of them, */
const AGREES = 0.7
/** … and with so much larger a share than what is believed. */
const CLEARLY = 0.2
/** A prompt under way beside a stream. */
interface Watched {
  witness: Sent
  /** Tokens that the witness had when the engine could begin the prompt. */
  from: number
}

export class BudgetFit {
  #seen: Bounds[] = []
  #next = 0
  #watched = new Map<RequestId, Watched>()

  /** It goes out; `streams`: those that have a token each step. */
  sent(id: RequestId, streams: ReadonlyMap<RequestId, Sent>): void {
    const witness = latest(streams)
    if (witness !== null) this.#watched.set(id, { witness, from: witness.output })
  }

  /** Its first token is here. Answers what the budget is believed to be from now on. */
  firstToken(
    id: RequestId,
    { uncachedTokens }: Sent,
    streams: ReadonlyMap<RequestId, Sent>,
    believed: number,
  ): number {
    const watched = this.#watched.get(id)
    this.#watched.delete(id)
    // Those behind it could begin only now.
    for (const other of this.#watched.values()) other.from = other.witness.output
    if (watched === undefined || !isAmong(watched.witness, streams)) return believed
    const { output, mostAtOnce } = watched.witness
    const tokens = output - watched.from
    // Those of its last steps may come after; those of steps before it was there, or after what brought them together, are not its own.
    const [mostSteps, leastSteps] = [tokens + mostAtOnce, tokens - 2 * mostAtOnce]
    this.#seen[this.#next] = {
      least: uncachedTokens / mostSteps + streams.size,
      most: leastSteps < 1 ? Infinity : uncachedTokens / leastSteps + streams.size,
    }
    this.#next = (this.#next + 1) % KEPT
    return this.#fitted(believed)
  }

  ended(id: RequestId): void {
    this.#watched.delete(id)
  }

  /** What agrees with most of what was seen; what is believed unless another does so clearly better. */
  #fitted(believed: number): number {
    if (this.#seen.length < ENOUGH) return believed
    const agreeing = (budget: number) =>
      this.#seen.filter(({ least, most }) => least <= budget && budget <= most).length / this.#seen.length
    const edges = this.#seen.flatMap(({ least, most }) => (most === Infinity ? [least] : [least, most]))
    const share = Math.max(...edges.map(agreeing))
    if (share < AGREES || share < agreeing(believed) + CLEARLY) return believed
    const best = edges.filter((edge) => agreeing(edge) === share)
    return Math.max(1, Math.round(Math.sqrt(Math.min(...best) * Math.max(...best))))
  }
}

/** It goes on longest, as far as can be told. */
function latest(streams: ReadonlyMap<RequestId, Sent>): Sent | null {
  let last: Sent | null = null
  for (const sent of streams.values()) last = sent
  return last
}

function isAmong(witness: Sent, streams: ReadonlyMap<RequestId, Sent>): boolean {
  for (const sent of streams.values()) if (sent === witness) return true
  return false
}
