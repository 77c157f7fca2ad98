/** From tokens to what a client sees: detokenize, split off thoughts and tool calls, cut the content at stop strings. */
import { Detokenizer } from "../engine/detokenizer.ts"
import type { Tokenizer } from "../engine/port.ts"
import { type SplitOptions, Splitter } from "./splitter.ts"
import { StopStrings } from "./stop.ts"
import type { CallDelta, Part } from "./tools/parts.ts"

export interface TextOptions extends SplitOptions {
  /** They end the content: thoughts and calls may contain them. */
  stops: readonly string[]
  /** They end the text and are no part of it. */
  stopTokens?: ReadonlySet<number>
  /** Stop strings count only after so many tokens. */
  minTokens?: number
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
  toolCalls: CallDelta[]
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
  readonly #splitter: Splitter
  readonly #options: TextOptions
  #tokens = 0
  /** The answer's beginning was seen and reported. */
  #reported = false
  /** Whole calls; those that have begun are more by one while one is being written. */
  #wholeCalls = 0
  toolCalls = 0

  constructor(tokenizer: Tokenizer, options: TextOptions) {
    this.#options = options
    this.#detokenizer = new Detokenizer(tokenizer)
    this.#stops = new StopStrings(options.stops)
    this.#splitter = new Splitter(options)
  }

  push(row: TextRow): TextStep {
    const used = row.tokens.length
    const out: TextStep = { ...nothing(), stopped: row.end, answeringFrom: -1, used }
    const count = row.end ? row.tokens.length - 1 : row.tokens.length
    for (let i = 0; i < row.tokens.length; i++) {
      const known = this.#splitter.answering
      if (known) this.#report(out, i)
      if (i >= count) break
      const token = row.tokens[i]!
      const early = this.#tokens++ < (this.#options.minTokens ?? 0)
      if (!early && this.#options.stopTokens?.has(token)) {
        out.stopped = true
        out.used = i + 1
        break
      }
      this.#split(this.#detokenizer.push(token), out, early)
      // A text that turns out not to think answers with this token; after `</think>` the next one does.
      if (!known && this.#splitter.answering && !this.thought) this.#report(out, i)
      if (this.#over) {
        out.stopped = true
        out.used = i + 1
        break
      }
    }
    return out
  }

  /** The rest, once it is known that no token follows. `brokenOff`: the model would have gone on. */
  flush(brokenOff = false): TextDelta {
    const out = nothing()
    if (this.#over) return out
    const rest = this.#detokenizer.flush()
    // Half a character may be one of a mark: what stands for it would make the mark text.
    if (!brokenOff || this.#options.calls === null) this.#split(rest, out, false)
    this.#tell(this.#splitter.flush(brokenOff), out, false)
    if (!this.#over) out.content += this.#stops.flush()
    return out
  }

  /** There was a thinking phase. */
  get thought(): boolean {
    return this.#splitter.thought
  }

  /** The stop string that ended the text, or null. */
  get stopString(): string | null {
    return this.#stops.matched
  }

  get #over(): boolean {
    return this.#stops.matched !== null || (this.#options.singleCall === true && this.#wholeCalls > 0)
  }

  #report(out: TextStep, index: number): void {
    if (this.#reported) return
    this.#reported = true
    out.answeringFrom = index
  }

  #split(text: string, out: TextDelta, early: boolean): void {
    if (text === "") return
    if (this.#splitter.isPlain) this.#content(text, out, early)
    else this.#tell(this.#splitter.push(text), out, early)
  }

  #tell(parts: readonly Part[], out: TextDelta, early: boolean): void {
    for (const part of parts) {
      if (this.#over) return
      if (part.kind === "content") this.#content(part.text, out, early)
      else if (part.kind === "reasoning") out.reasoning += part.text
      else if (part.kind === "called") this.#wholeCalls++
      else this.#call(part.delta, out)
    }
  }

  #content(text: string, out: TextDelta, early: boolean): void {
    out.content += early ? text : this.#stops.push(text)
  }

  #call(delta: CallDelta, out: TextDelta): void {
    if (delta.name !== null) {
      this.toolCalls++
      // No stop string goes on behind a call.
      out.content += this.#stops.flush()
    }
    addCall(out.toolCalls, delta)
  }
}

function nothing(): TextDelta {
  return { content: "", reasoning: "", toolCalls: [] }
}

/** Appends a piece of a call, to the piece before it where it goes on with that. */
export function addCall(to: CallDelta[], delta: CallDelta): void {
  const last = to.at(-1)
  if (last?.index === delta.index && delta.name === null) last.arguments += delta.arguments
  else to.push({ ...delta })
}
