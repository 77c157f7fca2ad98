/** Items of a conversation, and the messages that a chat template is given for them. */
import { newId } from "../ids.ts"
import type { ContentPart, InputItem, StoredItem } from "./schema.ts"

const PREFIX = { message: "msg", function_call: "fc", function_call_output: "fco", reasoning: "rs" } as const

/** As they are kept: each with a name, and texts as parts. */
export function namedItems(items: readonly StoredItem[]): StoredItem[] {
  return items.map((item) => {
    const named = { ...item, id: item.id ?? newId(PREFIX[item.type]) }
    if (named.type !== "message" || typeof named.content !== "string") return named
    const type = named.role === "assistant" ? "output_text" : "input_text"
    return { ...named, content: [{ type, text: named.content }] }
  })
}

/** A text is a message of the user. */
export function itemsOf(input: string | readonly InputItem[]): readonly InputItem[] {
  return typeof input === "string" ? [{ type: "message", role: "user", content: input }] : input
}

interface Message {
  role: string
  content: string | null
  reasoning_content?: string
  tool_call_id?: string
  tool_calls?: object[]
}

/** A chat's messages. Thoughts, text and calls that follow each other are one message of the assistant. */
export function messagesOf(items: readonly StoredItem[], instructions: string | null): Message[] {
  const messages: Message[] = []
  if (instructions !== null && instructions !== "") messages.push({ role: "system", content: instructions })
  const turn = new AssistantTurn(messages)
  for (const item of items) {
    if (item.type === "reasoning") turn.thought(thoughtsOf(item))
    else if (item.type === "function_call") turn.called(item)
    else if (item.type === "function_call_output")
      turn.others({ role: "tool", tool_call_id: item.call_id, content: plainText(item.output) })
    else if (item.role === "assistant") turn.said(plainText(item.content))
    else turn.others({ role: item.role, content: plainText(item.content) })
  }
  turn.end()
  return withOneSystem(messages)
}

class AssistantTurn {
  readonly #messages: Message[]
  #open: Message | null = null

  constructor(messages: Message[]) {
    this.#messages = messages
  }

  thought(text: string): void {
    // Thoughts come before what they led to.
    if (this.#open !== null && (this.#open.content !== null || this.#open.tool_calls)) this.end()
    const open = (this.#open ??= { role: "assistant", content: null })
    if (text !== "") open.reasoning_content = `${open.reasoning_content ?? ""}${text}`
  }

  said(text: string): void {
    if (this.#open !== null && (this.#open.content !== null || this.#open.tool_calls)) this.end()
    const open = (this.#open ??= { role: "assistant", content: null })
    open.content = text
  }

  called({ call_id: id, name, arguments: given }: Extract<StoredItem, { type: "function_call" }>): void {
    const open = (this.#open ??= { role: "assistant", content: null })
    ;(open.tool_calls ??= []).push({ id, type: "function", function: { name, arguments: given } })
  }

  others(message: Message): void {
    this.end()
    this.#messages.push(message)
  }

  /** Thoughts that led to nothing are left out: templates show no message without content. */
  end(): void {
    const open = this.#open
    this.#open = null
    if (open !== null && (open.content !== null || open.tool_calls)) this.#messages.push(open)
  }
}

/** What the system is told at the beginning is one message: many templates take but one. */
function withOneSystem(messages: readonly Message[]): Message[] {
  const first = messages.findIndex(({ role }) => role !== "system" && role !== "developer")
  const count = first < 0 ? messages.length : first
  if (count < 2) return [...messages]
  const content = messages.slice(0, count).map((message) => message.content ?? "")
  return [{ role: "system", content: content.join("\n\n") }, ...messages.slice(count)]
}

function plainText(content: string | readonly ContentPart[]): string {
  if (typeof content === "string") return content
  return content.map((part) => ("text" in part ? part.text : part.refusal)).join("")
}

function thoughtsOf({
  content,
  summary,
  encrypted_content: sealed,
}: Extract<StoredItem, { type: "reasoning" }>): string {
  const joined = (of: typeof content) => (of ?? []).map(({ text }) => text).join("")
  if (content && content.length > 0) return joined(content)
  return sealed ? opened(sealed) : joined(summary)
}

/** Thoughts in a form that clients hand back unread. They are no secret: nothing is encrypted. */
export function sealed(thoughts: string): string {
  return Buffer.from(thoughts, "utf8").toString("base64")
}

/** Another server's are not readable here, and nothing is made of them. */
function opened(text: string): string {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return ""
  const thoughts = Buffer.from(text, "base64")
  const read = thoughts.toString("utf8")
  return Buffer.from(read, "utf8").equals(thoughts) ? read : ""
}
