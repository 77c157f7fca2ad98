/** How long a prompt and its answer may be: the context holds both. */
import { type UserError, userError } from "../errors.ts"
import type { Generation } from "../replica/generation.ts"

/** What counts of a prompt's tokens. */
export function lastOf(
  tokens: Int32Array,
  { lastPromptTokens: last, maxTokens }: Generation,
  contextTokens: number,
): Int32Array {
  if (last === undefined) return tokens
  const most = last === "fitting" ? Math.max(1, contextTokens - (maxTokens || 1)) : last
  return tokens.length <= most ? tokens : tokens.slice(-most)
}

/** Most tokens of the answer: at least one, since a prompt is computed for the token that ends it, shown or not. */
export function outputLimit(
  promptTokens: number,
  { maxTokens, toContextEnd }: Generation,
  contextTokens: number,
  defaultMaxTokens: number,
): number {
  const most = maxTokens ?? (toContextEnd ? contextTokens : defaultMaxTokens)
  const fits = toContextEnd || maxTokens === null ? Math.min(most, contextTokens - promptTokens) : most
  const completion = maxTokens === 0 ? 0 : Math.max(1, fits)
  if (promptTokens + completion <= contextTokens) return Math.max(1, completion)
  throw promptTooLong(contextTokens, promptTokens, completion)
}

export function promptTooLong(
  contextTokens: number,
  prompt: number,
  completion: number,
  about = "",
): UserError {
  const requested = `${about}${prompt + completion}`
  return userError(
    "context_length_exceeded",
    { limit: contextTokens, requested, prompt: `${about}${prompt}`, completion },
    { param: "messages" },
  )
}
