/** A request for answers to one prompt as it is handed to a replica: validated, with its SLO, plain data throughout, so
 * that it can cross to another process. */
import type { SloClass } from "../config/slo-classes.ts"
import type { Slo, Tier } from "../core/protocol.ts"
import type { Sampling } from "../engine/port.ts"
import type { ChatPrompt } from "../text/template.ts"

export type Prompt =
  | ({ kind: "chat" } & ChatPrompt)
  | { kind: "text"; text: string }
  | { kind: "tokens"; tokens: readonly number[] }

export interface ResolvedSlo {
  class: SloClass
  slo: Slo
  tier: Tier
  /** Asked for `priority`: echoed as the service tier when it was served as such. */
  priority: boolean
  /** The class or the request's own objective expects thinking. */
  thinking: boolean
}

export interface Generation {
  prompt: Prompt
  /** Name of the tenant that it is of. */
  tenant: string
  /** null: what the context leaves, up to the server's default. 0: only the prompt is computed. */
  maxTokens: number | null
  /** The context may end before `maxTokens`; with null, until it ends. Left out: what does not fit is refused. */
  toContextEnd?: boolean
  /** With the seed of the first choice; the next one's is one more. */
  sampling: Sampling
  /** Whether its texts may spell control tokens: the request's word, or null for the server's. */
  parseSpecial: boolean | null
  stops: readonly string[]
  /** Tokens that end the answer and are no part of its text; left out: none. */
  stopTokens?: readonly number[]
  /** Texts that the answer, its thoughts and calls shall not have, as the model's tokens spell them; left out: none. */
  badWords?: readonly string[]
  /** The answer ends with its first tool call. */
  singleCall: boolean
  /** An answer that is nothing but JSON is no call: JSON was asked for. Left out: it may be one. */
  jsonIsText?: boolean
  /** Names of the tools that may be called; left out: all of the prompt's. */
  callable?: readonly string[]
  /** Of a longer prompt only the last so many tokens count, or those that fit; left out: all do. */
  lastPromptTokens?: number | "fitting"
  slo: ResolvedSlo
  /** Client's name of its tool session, or null. Another tenant's session of that name is another. */
  session: string | null
  /** Whether the model shall think: the request's word, or null for the class's and the template's. */
  reasoning: boolean | null
  /** The first n output tokens count as thinking, whatever their text; null: `<think>` decides. */
  thinkingTokens: number | null
}
