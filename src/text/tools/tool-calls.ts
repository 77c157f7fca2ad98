/** Finds tool calls (`<tool_call>{"name": …, "arguments": …}</tool_call>`, the Hermes and Qwen style) in a stream
 * of text pieces. Text that only looks like a call is given out as content: nothing the model said is lost. */
import { heldBack } from "../holdback.ts"

const OPEN = "<tool_call>"
const CLOSE = "</tool_call>"

export interface ToolCall {
  name: string
  /** JSON text. */
  arguments: string
}

export interface ToolSplit {
  content: string
  calls: ToolCall[]
}

export class ToolCallParser {
  /** Text not yet given out: a possible marker, or an unfinished call with its marker. */
  #held = ""
  #inCall = false
  /** White space after a call, kept until other text follows it. */
  #space = ""
  #calls = 0

  push(piece: string): ToolSplit {
    const out: ToolSplit = { content: "", calls: [] }
    let text = this.#held + piece
    this.#held = ""
    for (;;) {
      if (!this.#inCall) {
        const start = text.indexOf(OPEN)
        const end = start >= 0 ? start : text.length - heldBack(text, [OPEN])
        this.#say(text.slice(0, end), out)
        text = text.slice(end)
        if (start < 0) break
        this.#inCall = true
      }
      const close = text.indexOf(CLOSE, OPEN.length)
      if (close < 0) break
      this.#finish(text.slice(0, close + CLOSE.length), text.slice(OPEN.length, close), out)
      text = text.slice(close + CLOSE.length)
    }
    this.#held = text
    return out
  }

  /** What was held back: a call whose end marker is missing still counts when it is whole. */
  flush(): ToolSplit {
    const out: ToolSplit = { content: "", calls: [] }
    const text = this.#held
    this.#held = ""
    if (this.#inCall) this.#finish(text, text.slice(OPEN.length), out)
    else this.#say(text, out)
    return out
  }

  /** White space between calls is formatting, not content. */
  #say(text: string, out: ToolSplit): void {
    const spaced = this.#space + text
    const end = this.#calls > 0 ? spaced.trimEnd().length : spaced.length
    this.#space = spaced.slice(end)
    out.content += spaced.slice(0, end)
  }

  #finish(whole: string, inner: string, out: ToolSplit): void {
    this.#inCall = false
    const call = parseCall(inner)
    if (call === null) {
      this.#say(whole, out)
      return
    }
    this.#space = ""
    this.#calls++
    out.calls.push(call)
  }
}

function parseCall(text: string): ToolCall | null {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== "object" || value === null || !("name" in value) || typeof value.name !== "string")
      return null
    const given = "arguments" in value ? value.arguments : "parameters" in value ? value.parameters : {}
    return { name: value.name, arguments: typeof given === "string" ? given : JSON.stringify(given) }
  } catch {
    return null
  }
}
