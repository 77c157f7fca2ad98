/** The items of an answer as it comes: thoughts, text and calls, each begun, gone on with and ended in events. */
import type { AnswerDelta, TextLogprob } from "../../text/answer.ts"
import type { CallDelta } from "../../text/tools/parts.ts"
import { newId } from "../ids.ts"
import { sealed } from "./items.ts"

/** Takes an event: what the stream says. */
export type Tell = (type: string, fields: Readonly<Record<string, unknown>>) => void

export interface OutputOptions {
  /** Thoughts are told as a summary of themselves. */
  asSummary: boolean
  /** Thoughts come once more in the form in which clients hand them back. */
  isSealed: boolean
}

type Status = "completed" | "incomplete"
type Item = Record<string, unknown> & { id: string }

/** An item that is being written. */
interface Open {
  kind: "reasoning" | "message" | "call"
  id: string
  /** All of its text so far. */
  text: string
  /** Of a call: which. */
  call: { index: number; id: string; name: string } | null
}

export class ResponseOutput {
  /** Whole ones. */
  readonly items: Item[] = []
  readonly #tell: Tell
  readonly #options: OutputOptions
  #open: Open | null = null
  #logprobs: object[] = []
  /** How many of them the client has been told. */
  #toldLogprobs = 0
  /** White space that is text only if more follows, or nothing does: not before a call. */
  #space = ""

  constructor(options: OutputOptions, tell: Tell) {
    this.#options = options
    this.#tell = tell
  }

  push(delta: AnswerDelta): void {
    this.#logprobs.push(...delta.logprobs.map(logprobJson))
    if (delta.reasoning !== "") this.#think(delta.reasoning)
    const calls = [...delta.toolCalls]
    // What goes on with a call was written before the text that came with it.
    while (calls[0]?.name === null) this.#call(calls.shift()!)
    if (delta.content !== "") this.#say(delta.content)
    for (const call of calls) this.#call(call)
  }

  /** The answer is over. */
  end(status: Status): void {
    const called = this.#open?.kind === "call" || this.items.some(({ type }) => type === "function_call")
    if (this.#space !== "" && !called) this.#write("message", this.#space)
    this.#close(status)
    if (this.items.length === 0) {
      this.#begin("message")
      this.#close(status)
    }
  }

  #think(text: string): void {
    this.#write("reasoning", text)
  }

  #say(text: string): void {
    const all = this.#space + text
    this.#space = ""
    if (this.#open?.kind !== "message" && all.trim() === "") this.#space = all
    else this.#write("message", all)
  }

  #call({ index, name, arguments: given }: CallDelta): void {
    if (name !== null) {
      this.#space = ""
      this.#begin("call", { index, id: newId("call"), name })
    }
    if (given === "" || this.#open?.call?.index !== index) return
    const open = this.#open
    open.text += given
    this.#tell("response.function_call_arguments.delta", { ...this.#place(open), delta: given })
  }

  #write(kind: "reasoning" | "message", text: string): void {
    if (this.#open?.kind !== kind) this.#begin(kind)
    const open = this.#open!
    open.text += text
    const { delta, part } = this.#names(kind)
    const logprobs = kind === "message" ? { logprobs: this.#nextLogprobs() } : {}
    this.#tell(delta, { ...this.#place(open), ...part, delta: text, ...logprobs })
  }

  #begin(kind: Open["kind"], call: Open["call"] = null): void {
    this.#close("completed")
    const prefix = { reasoning: "rs", message: "msg", call: "fc" }[kind]
    const open: Open = { kind, id: newId(prefix), text: "", call }
    this.#open = open
    this.#tell("response.output_item.added", {
      output_index: this.items.length,
      item: this.#item(open, "in_progress"),
    })
    if (kind === "call") return
    const { added, part } = this.#names(kind)
    this.#tell(added, { ...this.#place(open), ...part, part: this.#part(open) })
  }

  #close(status: Status): void {
    const open = this.#open
    if (open === null) return
    this.#open = null
    const place = this.#place(open)
    if (open.kind === "call")
      this.#tell("response.function_call_arguments.done", {
        ...place,
        ...{ name: open.call!.name, arguments: open.text },
      })
    else {
      const { done, ended, part } = this.#names(open.kind)
      const logprobs = open.kind === "message" ? { logprobs: this.#logprobs } : {}
      this.#tell(done, { ...place, ...part, text: open.text, ...logprobs })
      this.#tell(ended, { ...place, ...part, part: this.#part(open) })
    }
    const item = this.#item(open, status)
    this.#tell("response.output_item.done", { output_index: this.items.length, item })
    this.items.push(item)
    if (open.kind === "message") {
      this.#logprobs = []
      this.#toldLogprobs = 0
    }
  }

  #place({ id }: Open): { item_id: string; output_index: number } {
    return { item_id: id, output_index: this.items.length }
  }

  /** Names of the events of a text, and of its place in the item. */
  #names(kind: "reasoning" | "message") {
    if (kind === "message") return TEXT_EVENTS
    return this.#options.asSummary ? SUMMARY_EVENTS : THOUGHT_EVENTS
  }

  #part({ kind, text }: Open): object {
    const logprobs = text === "" ? [] : this.#logprobs
    if (kind === "message") return { type: "output_text", annotations: [], logprobs, text }
    return { type: this.#options.asSummary ? "summary_text" : "reasoning_text", text }
  }

  #item(open: Open, status: Status | "in_progress"): Item {
    const { id, text, call } = open
    const begins = status === "in_progress"
    if (call !== null)
      return { id, type: "function_call", status, call_id: call.id, name: call.name, arguments: text }
    const parts = begins ? [] : [this.#part(open)]
    if (open.kind === "message") return { id, type: "message", status, role: "assistant", content: parts }
    const { asSummary, isSealed } = this.#options
    return {
      ...{ id, type: "reasoning", status, summary: asSummary ? parts : [] },
      ...(!asSummary && { content: parts }),
      ...(isSealed && { encrypted_content: begins ? null : sealed(text) }),
    }
  }

  #nextLogprobs(): object[] {
    const next = this.#logprobs.slice(this.#toldLogprobs)
    this.#toldLogprobs = this.#logprobs.length
    return next
  }
}

const TEXT_EVENTS = {
  added: "response.content_part.added",
  delta: "response.output_text.delta",
  done: "response.output_text.done",
  ended: "response.content_part.done",
  part: { content_index: 0 },
}
const THOUGHT_EVENTS = {
  ...TEXT_EVENTS,
  ...{ delta: "response.reasoning_text.delta", done: "response.reasoning_text.done" },
}
const SUMMARY_EVENTS = {
  added: "response.reasoning_summary_part.added",
  delta: "response.reasoning_summary_text.delta",
  done: "response.reasoning_summary_text.done",
  ended: "response.reasoning_summary_part.done",
  part: { summary_index: 0 },
}

function logprobJson(entry: TextLogprob): object {
  const token = ({ bytes, control, logprob }: Omit<TextLogprob, "top">) => ({
    ...{ token: control ?? new TextDecoder().decode(bytes), logprob, bytes: [...bytes] },
  })
  // The engine is asked for one more than the client wants.
  return { ...token(entry), top_logprobs: entry.top.slice(0, -1).map(token) }
}
