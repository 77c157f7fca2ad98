/** How many tokens a prompt has, as far as its bytes say: learnt from what the engine counts. */
import type { Prompt } from "../../replica/generation.ts"

/** Believed before anything was counted. */
const BYTES_PER_TOKEN = 4
/** What a template puts around a message. */
const MESSAGE_TOKENS = 5
/** Of a new count against the older ones. */
const WEIGHT = 0.05

export class PromptSizes {
  #bytesPerToken = BYTES_PER_TOKEN
  #counted = 0

  /** Of this prompt, at least 1. */
  tokens(prompt: Prompt): number {
    if (prompt.kind === "tokens") return Math.max(1, prompt.tokens.length)
    return Math.max(
      1,
      Math.round(bytesOf(prompt) / this.#bytesPerToken + messagesOf(prompt) * MESSAGE_TOKENS),
    )
  }

  /** The engine counted so many in it. */
  counted(prompt: Prompt, tokens: number): void {
    if (prompt.kind === "tokens") return
    const rest = tokens - messagesOf(prompt) * MESSAGE_TOKENS
    const bytes = bytesOf(prompt)
    // A prompt of a few words says nothing.
    if (rest < 16 || bytes < 64) return
    const weight = Math.max(WEIGHT, 1 / ++this.#counted)
    this.#bytesPerToken += weight * (bytes / rest - this.#bytesPerToken)
  }
}

function messagesOf(prompt: Prompt): number {
  return prompt.kind === "chat" ? prompt.messages.length + 1 : 0
}

function bytesOf(prompt: Prompt): number {
  if (prompt.kind === "text") return Buffer.byteLength(prompt.text)
  if (prompt.kind === "tokens") return 0
  let bytes = prompt.tools === null ? 0 : Buffer.byteLength(JSON.stringify(prompt.tools))
  for (const message of prompt.messages) {
    bytes += Buffer.byteLength(message.content ?? "")
    if (message.tool_calls !== undefined) bytes += Buffer.byteLength(JSON.stringify(message.tool_calls))
  }
  return bytes
}
