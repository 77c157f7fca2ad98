/** Drafts by prompt lookup: the longest run of tokens at the end that occurred before in the same request, and
 * what followed it there. Costs microseconds; good where answers repeat their prompts (summaries, code, tools). */
import type { BatchItem, RequestId } from "../core/protocol.ts"
import type { Drafter, Drafts } from "./drafter.ts"
import type { RequestTable } from "./request-table.ts"

/** Shorter runs recur by chance; longer ones are no better a sign. */
const LEAST_RUN = 2
const LONGEST_RUN = 6

export class LookupDrafter implements Drafter {
  readonly #table: RequestTable

  constructor(table: RequestTable) {
    this.#table = table
  }

  propose(items: readonly BatchItem[]): Drafts {
    const drafts = new Map<RequestId, number[]>()
    for (const { id, draft } of items) {
      if (draft === 0) continue
      const { tokens, known } = this.#table.get(id)
      const found = continuation(tokens.subarray(0, known), draft)
      if (found.length > 0) drafts.set(id, found)
    }
    return drafts
  }

  close(): void {}
}

/** `count` tokens that may follow `tokens`, or none. The latest of equally long runs counts. A run that reaches
 * the end goes on into what it predicts, so that a loop is drafted at any length. */
export function continuation(tokens: ArrayLike<number>, count: number): number[] {
  const last = tokens.length - 1
  let best = LEAST_RUN - 1
  let from = -1
  for (let end = last - 1; end >= best && best < LONGEST_RUN; end--) {
    let run = 0
    while (run < LONGEST_RUN && run <= end && tokens[end - run] === tokens[last - run]) run++
    if (run > best) {
      best = run
      from = end + 1
    }
  }
  if (from < 0) return []
  const found: number[] = []
  for (let i = 0; i < count; i++) found.push(tokens[from + i] ?? found[from + i - tokens.length]!)
  return found
}
