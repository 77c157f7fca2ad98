/** The items of an answer as it comes: thoughts, text and calls, each begun, gone on with and ended in events. */
import type { AnswerDelta, TextLogprob } from "../../text/answer.ts"
import { type Block, Blocks } from "../blocks.ts"
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
interface Open extends Block {
  id: string
  /** Of a call. */
  callId: string
}

const PREFIXES = { thoughts: "rs", text: "msg", call: "fc" } as const

export class ResponseOutput {
  /** Whole ones. */
  readonly items: Item[] = []
  readonly #tell: Tell
  readonly #options: OutputOptions
  readonly #blocks: Blocks<Open>
  #status: Status = "completed"
  #logprobs: object[] = []
  /** How many of them the client has been told. */
  #toldLogprobs = 0

  constructor(options: OutputOptions, tell: Tell) {
    this.#options = options
    this.#tell = tell
    this.#blocks = new Blocks<Open>({
      made: (block) => ({ ...block, id: newId(PREFIXES[block.kind]), callId: newId("call") }),
      begun: (open) => this.#begun(open),
      wentOn: (open, piece) => this.#wentOn(open, piece),
      ended: (open, last) => this.#ended(open, last ? this.#status : "completed"),
    })
  }

  push(delta: AnswerDelta): void {
    this.#logprobs.push(...delta.logprobs.map(logprobJson))
    this.#blocks.push(delta)
  }

  /** The answer is over. */
  end(status: Status): void {
    this.#status = status
    this.#blocks.end(true)
  }

  #begun(open: Open): void {
    this.#tell("response.output_item.added", {
      output_index: this.items.length,
      item: this.#item(open, "in_progress"),
    })
    if (open.kind === "call") return
    const { added, part } = this.#names(open.kind)
    this.#tell(added, { ...this.#place(open), ...part, part: this.#part(open) })
  }

  #wentOn(open: Open, piece: string): void {
    if (open.kind === "call") {
      this.#tell("response.function_call_arguments.delta", { ...this.#place(open), delta: piece })
      return
    }
    const { delta, part } = this.#names(open.kind)
    const logprobs = open.kind === "text" ? { logprobs: this.#nextLogprobs() } : {}
    this.#tell(delta, { ...this.#place(open), ...part, delta: piece, ...logprobs })
  }

  #ended(open: Open, status: Status): void {
    const place = this.#place(open)
    if (open.kind === "call")
      this.#tell("response.function_call_arguments.done", {
        ...place,
        ...{ name: open.call!.name, arguments: open.text },
      })
    else {
      const { done, ended, part } = this.#names(open.kind)
      const logprobs = open.kind === "text" ? { logprobs: this.#logprobs } : {}
      this.#tell(done, { ...place, ...part, text: open.text, ...logprobs })
      this.#tell(ended, { ...place, ...part, part: this.#part(open) })
    }
    const item = this.#item(open, status)
    this.#tell("response.output_item.done", { output_index: this.items.length, item })
    this.items.push(item)
    if (open.kind === "text") {
      this.#logprobs = []
      this.#toldLogprobs = 0
    }
  }

  #place({ id }: Open): { item_id: string; output_index: number } {
    return { item_id: id, output_index: this.items.length }
  }

  /** Names of the events of a text, and of its place in the item. */
  #names(kind: "thoughts" | "text") {
    if (kind === "text") return TEXT_EVENTS
    return this.#options.asSummary ? SUMMARY_EVENTS : THOUGHT_EVENTS
  }

  #part({ kind, text }: Open): object {
    const logprobs = text === "" ? [] : this.#logprobs
    if (kind === "text") return { type: "output_text", annotations: [], logprobs, text }
    return { type: this.#options.asSummary ? "summary_text" : "reasoning_text", text }
  }

  #item(open: Open, status: Status | "in_progress"): Item {
    const { id, text, call, callId } = open
    const begins = status === "in_progress"
    if (call !== null)
      return { id, type: "function_call", status, call_id: callId, name: call.name, arguments: text }
    const parts = begins ? [] : [this.#part(open)]
    if (open.kind === "text") return { id, type: "message", status, role: "assistant", content: parts }
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
