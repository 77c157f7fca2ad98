/** The answer to one request on its way back: the driver's tokens become text deltas, its outcome becomes the end. */
import type { FinishReason, Outcome, RejectReason } from "../core/protocol.ts"
import type { StepRow, Tokenizer, TokenLogprob } from "../engine/port.ts"
import { type UserError, userError } from "../errors.ts"
import { type TextDelta, type TextOptions, type TextRow, TextStream } from "./text-stream.ts"

/** A token's log-probability, and what it stands for. */
export interface TextLogprob {
  bytes: Uint8Array
  /** Of a control token: how it is written, which is no text. */
  control?: string
  logprob: number
  top: readonly Omit<TextLogprob, "top">[]
}

export interface AnswerDelta extends TextDelta {
  /** Of the tokens of this step, when asked for. */
  logprobs: TextLogprob[]
  /** Of the prompt's tokens, when asked for: with the first delta. The first of them was given. */
  prompt?: readonly TextLogprob[]
  /** Of the prompt, when asked for: floats of 32 bits, little-endian. */
  embedding?: Uint8Array
  promptTokens: number
  /** Tokens of the answer so far, those of this delta included. */
  completionTokens: number
}

/** It says how many tokens there are, and nothing else: their text is held back, or there is none. */
export function isCount({
  content,
  reasoning,
  toolCalls,
  logprobs,
  prompt,
  embedding,
}: AnswerDelta): boolean {
  if (content !== "" || reasoning !== "" || toolCalls.length > 0 || logprobs.length > 0) return false
  return prompt === undefined && embedding === undefined
}

export interface Usage {
  promptTokens: number
  cachedTokens: number
  completionTokens: number
  reasoningTokens: number
  /** Steps that speculated, tokens drafted in them, and how many of those were accepted. */
  drafts: number
  draftedTokens: number
  acceptedTokens: number
}

export type AnswerEnd =
  | {
      kind: "finished"
      reason: "stop" | "length" | "tool_calls"
      /** The stop string that ended it; left out: none did. */
      stop?: string | undefined
      usage: Usage
      outcome: Outcome
    }
  | { kind: "failed"; error: UserError }
  | { kind: "cancelled" }

/** Where an answer goes. Called synchronously from the driver's loop: be quick. */
export interface AnswerSink {
  delta(delta: AnswerDelta): void
  /** Exactly once, after all deltas. */
  end(end: AnswerEnd): void
}

export interface AnswerOptions {
  promptTokens: number
  /** The driver expects a thinking phase. */
  thinking: boolean
  thinkingTokens: number | null
  /** First token of the prompt, where log-probabilities of its tokens are asked for. */
  firstToken?: number
  /** Only its prompt is to be computed: the token that ends that is none of the answer. */
  silent?: boolean
  text: TextOptions
}

/** What a step means for the core. */
export interface Seen {
  stopped: boolean
  answeringFrom: number
  /** Tokens of it up to where the text stopped. */
  tokens: number
}

export class Answer {
  readonly #tokenizer: Tokenizer
  readonly #text: TextStream
  readonly #sink: AnswerSink
  readonly #options: AnswerOptions
  #tokens = 0
  /** Tokens before the answer began; grows until it does. */
  #reasoningTokens = 0
  #answering: boolean
  readonly #speculated = { drafts: 0, draftedTokens: 0, acceptedTokens: 0 }

  constructor(tokenizer: Tokenizer, sink: AnswerSink, options: AnswerOptions) {
    this.#tokenizer = tokenizer
    this.#text = new TextStream(tokenizer, options.text)
    this.#sink = sink
    this.#options = options
    this.#answering = options.text.think === null && options.thinkingTokens === null
  }

  /** Tokens of a step that was taken elsewhere: the client has their text, so the sink is told nothing, and what comes goes
   * on after them. */
  replay(tokens: readonly number[]): Seen {
    const last = tokens.at(-1)
    return this.#read({ tokens, end: last !== undefined && this.#tokenizer.isEnd(last) }).seen
  }

  onTokens(row: StepRow): Seen {
    const prompt = row.prompt === undefined ? {} : { prompt: this.#promptOf(row.prompt) }
    if (this.#options.silent) {
      const embedding = row.embedding === undefined ? {} : { embedding: bytesOf(row.embedding) }
      this.#sink.delta({ ...NOTHING, toolCalls: [], logprobs: [], ...prompt, ...embedding, ...this.#counts })
      return { stopped: false, answeringFrom: -1, tokens: row.tokens.length }
    }
    const { seen, text } = this.#read(row)
    const speculated = this.#speculated
    if (row.drafted > 0) speculated.drafts++
    speculated.draftedTokens += row.drafted
    speculated.acceptedTokens += row.tokens.length - 1
    const logprobs = row.logprobs?.slice(0, seen.tokens).map(this.#textOf) ?? []
    // Also a step without text: its tokens are there, and clients that count tokens are told so now.
    this.#sink.delta({ ...text, logprobs, ...prompt, ...this.#counts })
    return seen
  }

  onEnd(end: { reason: FinishReason | RejectReason; outcome: Outcome | null; message?: string }): void {
    const { reason, outcome } = end
    if ((reason === "stop" || reason === "length") && outcome !== null) {
      const rest = this.#text.flush(reason === "length")
      if (rest.content !== "" || rest.reasoning !== "" || rest.toolCalls.length > 0)
        this.#sink.delta({ ...rest, logprobs: [], ...this.#counts })
      const called = this.#text.toolCalls > 0 && reason === "stop"
      const usage = this.#usage(outcome)
      const ended = { reason: called ? ("tool_calls" as const) : reason, usage, outcome }
      const { stopString: stop } = this.#text
      this.#sink.end({ kind: "finished", ...ended, ...(stop !== null && { stop }) })
    } else if (reason === "cancelled") this.#sink.end({ kind: "cancelled" })
    else this.#sink.end({ kind: "failed", error: this.#error(reason, end.message) })
  }

  #read(row: TextRow): { seen: Seen; text: TextDelta } {
    const { used, stopped, answeringFrom, ...text } = this.#text.push(row)
    const from = this.#answerStart(answeringFrom, used)
    this.#tokens += used
    return { seen: { stopped, answeringFrom: this.#options.thinking ? from : -1, tokens: used }, text }
  }

  #textOf = ({ token, logprob, top }: TokenLogprob): TextLogprob => {
    const others = top.map((other) => ({ ...this.#spelt(other.token), logprob: other.logprob }))
    return { ...this.#spelt(token), logprob, top: others }
  }

  #spelt(token: number): Pick<TextLogprob, "bytes" | "control"> {
    const bytes = this.#tokenizer.bytes(token)
    const control = bytes.length > 0 ? undefined : this.#tokenizer.controls.textOf(token)
    return control === undefined ? { bytes } : { bytes, control }
  }

  #promptOf(scores: readonly TokenLogprob[]): TextLogprob[] {
    const first = { ...this.#spelt(this.#options.firstToken!), logprob: 0, top: [] }
    return [first, ...scores.map(this.#textOf)]
  }

  get #counts() {
    return { promptTokens: this.#options.promptTokens, completionTokens: this.#tokens }
  }

  #answerStart(fromText: number, count: number): number {
    if (this.#answering) return -1
    const budget = this.#options.thinkingTokens
    const fromBudget = budget !== null && budget - this.#tokens < count ? budget - this.#tokens : -1
    const from = budget === null ? fromText : fromBudget
    this.#answering = from >= 0
    this.#reasoningTokens += from >= 0 ? from : count
    return from
  }

  #usage(outcome: Outcome): Usage {
    return {
      ...this.#speculated,
      promptTokens: this.#options.promptTokens,
      cachedTokens: outcome.cachedTokens,
      completionTokens: this.#tokens,
      reasoningTokens:
        this.#options.thinkingTokens !== null || this.#text.thought ? this.#reasoningTokens : 0,
    }
  }

  #error(reason: FinishReason | RejectReason, message: string | undefined): UserError {
    if (reason === "shuttingDown") return userError("shutting_down")
    if (reason === "engineDown") return userError("engine_down", { detail: message ?? "it does not compute" })
    const limit = message ?? (reason === "promptTooLong" ? "the prompt does not fit its memory" : reason)
    return userError("engine_failed", { detail: limit })
  }
}

const NOTHING = { content: "", reasoning: "" }

function bytesOf(floats: Float32Array): Uint8Array {
  return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength)
}
