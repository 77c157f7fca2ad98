/** Words that an answer shall not have, as sequences of tokens: the last token of one may not come where those before it
 * have, as in vLLM. Only the answer counts, not its prompt. */
import type { OpenRequest } from "./request-table.ts"

/** Tokens that would complete one after what the request has produced, and `ahead`. */
export function wordEnds(request: OpenRequest, ahead: readonly number[] = []): number[] {
  const { sampling, tokens, known, promptTokens } = request
  const produced = known - promptTokens + ahead.length
  /** The `back`-th token from the end. */
  const last = (back: number) =>
    back <= ahead.length ? ahead[ahead.length - back] : tokens[known + ahead.length - back]
  const ends: number[] = []
  for (const word of sampling.badWords ?? []) {
    const before = word.length - 1
    if (before > produced) continue
    let same = 0
    while (same < before && word[before - 1 - same] === last(same + 1)) same++
    if (same === before) ends.push(word[before]!)
  }
  return ends
}
