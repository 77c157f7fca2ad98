/** Conversations for templates that are particular about whose turn it is. What is said stays, in its order; all that changes is
 * the role that says it. */
import type { ChatMessage } from "./chat.ts"

/** What the system says begins what the user says next: for templates that have no place for it. */
export function withoutSystem(messages: readonly ChatMessage[]): ChatMessage[] {
  return joined(messages.map((message) => (message.role === "system" ? byUser(message) : message)))
}

/** The system speaks once, at first, and the others in turns: for templates that refuse all else. */
export function inTurns(messages: readonly ChatMessage[]): ChatMessage[] {
  const first = messages.findIndex(({ role }) => role !== "system")
  const opening = first < 0 ? messages : messages.slice(0, first)
  const rest = first < 0 ? [] : messages.slice(first)
  return [...joined(opening), ...withoutSystem(rest)]
}

function byUser(message: ChatMessage): ChatMessage {
  return { ...message, role: "user" }
}

/** Turns of one role that follow each other are one. Calls and results are left as they are. */
function joined(messages: readonly ChatMessage[]): ChatMessage[] {
  const out: ChatMessage[] = []
  for (const message of messages) {
    const last = out.at(-1)
    if (last?.role !== message.role || !isPlain(last) || !isPlain(message)) out.push(message)
    else out[out.length - 1] = { ...last, content: `${last.content ?? ""}\n\n${message.content ?? ""}` }
  }
  return out
}

function isPlain({ role, tool_calls, reasoning_content }: ChatMessage): boolean {
  return role !== "tool" && tool_calls === undefined && reasoning_content === undefined
}
