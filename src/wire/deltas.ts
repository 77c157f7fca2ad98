/** Plain tokens of one moment, of all answers together, in columns: most of what a replica says. A message for each would
 * cost both ends more than all that is done with the tokens. */
import type { JobId } from "../replica/host.ts"
import type { AnswerDelta } from "../text/answer.ts"

/** One place in each column for each step of an answer; `tokens` has those of all, one after the other. */
export interface Deltas {
  type: "deltas"
  ids: JobId[]
  choices: number[]
  /** How many of the tokens are its. */
  lengths: number[]
  tokens: number[]
  /** null: there is none yet. */
  texts: (string | null)[]
  /** As the delta counts them; 0 without a text. */
  promptTokens: number[]
  completionTokens: number[]
}

/** Nothing but text: what else a delta may have has no columns. */
export function isPlain(delta: AnswerDelta | null): boolean {
  if (delta === null) return true
  const { reasoning, toolCalls, logprobs, prompt, embedding } = delta
  if (prompt !== undefined || embedding !== undefined) return false
  return reasoning === "" && toolCalls.length === 0 && logprobs.length === 0
}

export function noDeltas(): Deltas {
  return {
    ...{ type: "deltas", ids: [], choices: [], lengths: [], tokens: [] },
    ...{ texts: [], promptTokens: [], completionTokens: [] },
  }
}

export function addDelta(
  to: Deltas,
  id: JobId,
  choice: number,
  tokens: readonly number[],
  delta: AnswerDelta | null,
): void {
  to.ids.push(id)
  to.choices.push(choice)
  to.lengths.push(tokens.length)
  for (const token of tokens) to.tokens.push(token)
  to.texts.push(delta === null ? null : delta.content)
  to.promptTokens.push(delta?.promptTokens ?? 0)
  to.completionTokens.push(delta?.completionTokens ?? 0)
}

/** Whether there is one place for each step, and a token for each that is counted. */
export function areColumns(deltas: Omit<Deltas, "type">): boolean {
  const { ids, choices, lengths, tokens, texts, promptTokens, completionTokens } = deltas
  const each = [choices, lengths, texts, promptTokens, completionTokens]
  return (
    each.every(({ length }) => length === ids.length) &&
    lengths.reduce((sum, length) => sum + length, 0) === tokens.length
  )
}

/** In the order in which they were added. */
export function eachDelta(
  deltas: Deltas,
  tell: (id: JobId, choice: number, tokens: number[], delta: AnswerDelta | null) => void,
): void {
  const { ids, choices, lengths, tokens, texts, promptTokens, completionTokens } = deltas
  let from = 0
  for (let i = 0; i < ids.length; i++) {
    const to = from + lengths[i]!
    const content = texts[i]!
    const counts = { promptTokens: promptTokens[i]!, completionTokens: completionTokens[i]! }
    const delta = content === null ? null : { content, reasoning: "", toolCalls: [], logprobs: [], ...counts }
    tell(ids[i]!, choices[i]!, tokens.slice(from, to), delta)
    from = to
  }
}
