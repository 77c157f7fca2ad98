/** What a client wants cleared of its conversation (`context_management`). Thoughts of earlier turns are left out as it says. What
 * is to be done from so many tokens on is never due where no prompt becomes so long, and refused elsewhere: nothing is
 * summarized or cleared here by a count of tokens. */
import { z } from "zod"
import { UserError } from "../../errors.ts"
import { listOf } from "../lists.ts"
import { count } from "../schemas.ts"

const turns = z.object({ type: z.literal("thinking_turns"), value: count })
const clearThinking = z.object({
  type: z.literal("clear_thinking_20251015"),
  keep: z.union([z.literal("all"), z.object({ type: z.literal("all") }), turns]).nullish(),
})
const due = z.looseObject({ type: z.enum(["input_tokens", "tool_uses"]), value: count }).nullish()
const clearToolUses = z.looseObject({ type: z.literal("clear_tool_uses_20250919"), trigger: due })
const compact = z.looseObject({ type: z.literal("compact_20260112"), trigger: due })

/** Tokens from which on Anthropic does it where a request does not say. */
const DUE_TOKENS = { clear_tool_uses_20250919: 100_000, compact_20260112: 150_000 } as const

export const contextManagement = z.object({
  edits: listOf(
    z.discriminatedUnion("type", [clearThinking, clearToolUses, compact], {
      error: 'must be "clear_thinking_20251015", "clear_tool_uses_20250919" or "compact_20260112"',
    }),
  ).nullish(),
})
export type ContextManagement = z.output<typeof contextManagement>

/** Throws a 400 for an edit that might be due within so many tokens. */
export function checkEdits(management: ContextManagement | null | undefined, contextTokens: number): void {
  for (const [i, edit] of (management?.edits ?? []).entries()) {
    if (edit.type === "clear_thinking_20251015") continue
    const { type = "input_tokens", value = DUE_TOKENS[edit.type] } = edit.trigger ?? {}
    if (type === "input_tokens" && value >= contextTokens) continue
    const param = `context_management.edits[${i}].trigger`
    throw new UserError(
      `Invalid '${param}': nothing is cleared by a count here, and a prompt may become so long within the context of ` +
        `${contextTokens} tokens: send the messages that count.`,
      { code: "invalid_value", param },
    )
  }
}

/** A message as far as it is looked at here. */
interface Said {
  role: string
  content: string | readonly { type: string }[]
}

/** The messages without the thoughts that are to be cleared. */
export function withoutCleared<T extends Said>(
  messages: readonly T[],
  management: ContextManagement | null | undefined,
): readonly T[] {
  const edit = management?.edits?.find(({ type }) => type === "clear_thinking_20251015")
  if (edit === undefined) return messages
  const { keep } = edit as z.output<typeof clearThinking>
  if (keep === "all" || keep?.type === "all") return messages
  let left = keep?.value ?? 1
  let seen = false
  return messages
    .toReversed()
    .map((message) => {
      // A turn goes back to what the user said: results of its calls are within it.
      if (saysSomething(message) && seen) {
        left--
        seen = false
      }
      seen ||= isThinking(message)
      return left > 0 ? message : withoutThoughts(message)
    })
    .toReversed()
}

function saysSomething({ role, content }: Said): boolean {
  if (role !== "user") return false
  return typeof content === "string" || content.some(({ type }) => type === "text")
}

function isThinking({ role, content }: Said): boolean {
  return (
    role === "assistant" && typeof content !== "string" && content.some(({ type }) => type === "thinking")
  )
}

function withoutThoughts<T extends Said>(message: T): T {
  if (message.role !== "assistant" || typeof message.content === "string") return message
  return { ...message, content: message.content.filter(({ type }) => type !== "thinking") }
}
