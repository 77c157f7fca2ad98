/** From tokens to what a client sees: detokenize, cut at stop strings, split off thinking, find tool calls. */
import { Detokenizer } from "../engine/detokenizer.ts"
import type { Tokenizer } from "../engine/port.ts"
import { StopStrings } from "./stop.ts"
import { ThinkSplitter } from "./think.ts"
import { type ToolCall, ToolCallParser } from "./tools/tool-calls.ts"

export interface TextOptions {
  stops: readonly string[]
  /** Stop strings count only after so many tokens. */
  minTokens?: number
  /** Split thinking off; `opened` when the prompt ends in `<think>`. null: all text is content. */
  think: { opened: boolean } | null
  tools: boolean
  /** The text ends with its first tool call. */
  singleCall?: boolean
}

/** Tokens of a step. */
export interface TextRow {
  tokens: readonly number[]
  /** See StepRow. */
  end: boolean
}

export interface TextDelta {
  content: string
  reasoning: string
  toolCalls: ToolCall[]
}

export interface TextStep extends TextDelta {
  /** A stop string was met: the request is over. */
  stopped: boolean
  /** Index within the row's tokens of the first answer token, or -1 when the phase did not change. */
  answeringFrom: number
  /** Tokens of the row up to where the text stopped: all, unless it speculated past a stop string. */
  used: number
}

export class TextStream {
  readonly #detokenizer: Detokenizer
  readonly #stops: StopStrings
  readonly #think: ThinkSplitter | null
  readonly #tools: ToolCallParser | null
  readonly #options: TextOptions
  #tokens = 0
  /** The answer's beginning was seen and reported. */
  #reported = false
  toolCalls = 0

  constructor(tokenizer: Tokenizer, options: TextOptions) {
    this.#options = options
    this.#detokenizer = new Detokenizer(tokenizer)
    this.#stops = new StopStrings(options.stops)
    this.#think = options.think === null ? null : new ThinkSplitter(options.think.opened)
    this.#tools = options.tools ? new ToolCallParser() : null
  }

  push(row: TextRow): TextStep {
    const used = row.tokens.length
    const out: TextStep = {
      content: "",
      reasoning: "",
      toolCalls: [],
      stopped: row.end,
      answeringFrom: -1,
      used,
    }
    const count = row.end ? row.tokens.length - 1 : row.tokens.length
    for (let i = 0; i < row.tokens.length; i++) {
      const known = this.#answering
      if (known) this.#report(out, i)
      if (i >= count) break
      const piece = this.#detokenizer.push(row.tokens[i]!)
      const early = this.#tokens++ < (this.#options.minTokens ?? 0)
      this.#split(early ? piece : this.#stops.push(piece), out)
      // A text that turns out not to think answers with this token; after `</think>` the next one does.
      if (!known && this.#answering && !this.thought) this.#report(out, i)
      if (this.#stops.matched !== null || (this.#options.singleCall === true && this.toolCalls > 0)) {
        out.stopped = true
        out.used = i + 1
        break
      }
    }
    return out
  }

  /** The rest, once it is known that no token follows. */
  flush(): TextDelta {
    const out: TextDelta = { content: "", reasoning: "", toolCalls: [] }
    if (this.#stops.matched === null) {
      this.#split(this.#stops.push(this.#detokenizer.flush()), out)
      this.#split(this.#stops.flush(), out)
    }
    if (this.#think !== null) {
      const rest = this.#think.flush()
      out.reasoning += rest.reasoning
      this.#say(rest.content, out)
    }
    if (this.#tools !== null) {
      const rest = this.#tools.flush()
      out.content += rest.content
      this.#call(rest.calls, out)
    }
    return out
  }

  /** There was a thinking phase. */
  get thought(): boolean {
    return this.#think?.thought ?? false
  }

  get #answering(): boolean {
    return this.#think?.answering ?? true
  }

  #report(out: TextStep, index: number): void {
    if (this.#reported) return
    this.#reported = true
    out.answeringFrom = index
  }

  #split(text: string, out: TextDelta): void {
    if (text === "") return
    if (this.#think === null) {
      this.#say(text, out)
      return
    }
    const { reasoning, content } = this.#think.push(text)
    out.reasoning += reasoning
    this.#say(content, out)
  }

  #say(text: string, out: TextDelta): void {
    if (text === "" || this.#tools === null) {
      out.content += text
      return
    }
    const { content, calls } = this.#tools.push(text)
    out.content += content
    this.#call(calls, out)
  }

  #call(found: ToolCall[], out: TextDelta): void {
    const calls = this.#options.singleCall === true ? found.slice(0, 1 - this.toolCalls) : found
    this.toolCalls += calls.length
    out.toolCalls.push(...calls)
  }
}
