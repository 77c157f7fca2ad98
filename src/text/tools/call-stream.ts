/** Finds tool calls in a stream of text pieces, whatever the pieces. Text that only looks like a call is content. */
import type { ToolFormat } from "./format.ts"
import { Found, type Part, type Tool } from "./parts.ts"
import { type Reading, Unread } from "./unread.ts"

export interface CallOptions {
  format: ToolFormat
  tools: readonly Tool[]
  /** An answer that is nothing but JSON may be a call: not where JSON was asked for. */
  bare: boolean
  /** A grammar holds its calls. Left out: none does. */
  held?: boolean
}

export class CallStream {
  readonly #text = new Unread()
  readonly #found = new Found()
  readonly #reading: Reading

  constructor({ format, tools, bare, held = false }: CallOptions) {
    const names = new Set(tools.map(({ name }) => name))
    const context = { tools, names, bare: bare && tools.length > 0, held }
    this.#reading = format.read(this.#text, this.#found, context)
  }

  push(piece: string): Part[] {
    this.#text.push(piece)
    this.#reading.next()
    return this.#found.take()
  }

  /** The rest, once it is known that no text follows: it ended so, or was broken off. A call that was is what there is of it. */
  flush(brokenOff: boolean): Part[] {
    this.#text.brokenOff ||= brokenOff
    this.#text.ended = true
    this.#reading.next()
    return this.#found.take()
  }
}
