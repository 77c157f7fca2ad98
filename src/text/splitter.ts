/** Splits an answer into thoughts, content and calls. */

import { type Split, ThinkSplitter } from "./think.ts"
import { type CallOptions, CallStream } from "./tools/call-stream.ts"
import type { Part } from "./tools/parts.ts"

export interface SplitOptions {
  /** Split thinking off; `opened` when the prompt ends in `<think>`. null: all text is content. */
  think: { opened: boolean } | null
  /** How the model writes calls, and which it may make; null: it has no tools. */
  calls: CallOptions | null
}

export class Splitter {
  readonly #think: ThinkSplitter | null
  readonly #calls: CallStream | null
  /** Thoughts are told by the reader of calls. */
  readonly #inChannels: boolean
  #thought = false
  #answering: boolean

  constructor({ think, calls }: SplitOptions) {
    this.#inChannels = think !== null && calls?.format.thinks === true
    this.#think = think === null || this.#inChannels ? null : new ThinkSplitter(think.opened)
    this.#calls = calls === null ? null : new CallStream(calls)
    this.#answering = think === null
  }

  /** Nothing is split off: every text is content. */
  get isPlain(): boolean {
    return this.#think === null && this.#calls === null
  }

  /** There was a thinking phase. */
  get thought(): boolean {
    return this.#think?.thought ?? this.#thought
  }

  /** The answer has begun: the next text, if any, belongs to it. */
  get answering(): boolean {
    return this.#think?.answering ?? this.#answering
  }

  push(piece: string): Part[] {
    if (this.#think === null) return this.#content(piece)
    return this.#join(this.#think.push(piece))
  }

  /** The rest, once it is known that no text follows. */
  flush(brokenOff: boolean): Part[] {
    const parts = this.#think === null ? [] : this.#join(this.#think.flush())
    return this.#calls === null ? parts : [...parts, ...this.#told(this.#calls.flush(brokenOff))]
  }

  #join({ reasoning, content }: Split): Part[] {
    const thoughts: Part[] = reasoning === "" ? [] : [{ kind: "reasoning", text: reasoning }]
    return content === "" ? thoughts : [...thoughts, ...this.#content(content)]
  }

  #content(text: string): Part[] {
    return this.#calls === null ? [{ kind: "content", text }] : this.#told(this.#calls.push(text))
  }

  #told(parts: Part[]): Part[] {
    for (const { kind } of parts) {
      if (kind === "reasoning") this.#thought = true
      else this.#answering = true
    }
    return parts
  }
}
