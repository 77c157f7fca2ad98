/** Responses of the two generation endpoints, whole and in chunks, as OpenAI's. A request has one or more choices:
 * several answers to each of its prompts. Chunks are JSON text, most of which is the same in every one. */
import type { UserError } from "../errors.ts"
import type { ResolvedSlo } from "../serve/slo-resolve.ts"
import { type AnswerDelta, type AnswerEnd, isCount, type TextLogprob } from "../text/answer.ts"
import type { CallDelta } from "../text/tools/parts.ts"
import type { Delivered } from "./delivery.ts"
import { errorBody } from "./errors.ts"
import { newId } from "./ids.ts"
import { ColumnWriter, joinColumns, type LogprobColumns, promptColumns } from "./logprob-columns.ts"
import { metricsJson, serviceTier, usageJson } from "./result.ts"

export type Finished = Extract<AnswerEnd, { kind: "finished" }> & { delivered: Delivered }

export interface FormatOptions {
  /** The response's id, without prefix. */
  id: string
  model: string
  slo: ResolvedSlo
  /** Choices in all, and how many of them each prompt has. */
  choices?: number
  perPrompt?: number
  /** Streams end with a usage chunk. */
  includeUsage: boolean
  /** Every chunk says how many tokens there are so far (vLLM's continuous_usage_stats). */
  continuousUsage?: boolean
  /** Fields of the request that were accepted and have no effect. */
  ignored?: readonly string[]
}

/** Streams are told as text of events. */
export interface Format {
  /** Chunks say how many tokens there are so far: also those without text are wanted. Left out: they do not. */
  readonly tellsCounts?: boolean
  /** Before any text of a choice; empty when there is nothing. */
  opening(choice: number): string
  chunk(delta: AnswerDelta, choice: number): string
  /** After the last text of a choice. */
  closing(end: Finished, choice: number): string
  /** After all choices. */
  last(ends: readonly Finished[]): string
  /** While nothing comes; left out: a comment. */
  heartbeat?(): string
  /** What ends a stream that had begun. */
  failure(error: UserError): string
  whole(all: readonly AnswerDelta[], ends: readonly Finished[]): object
}

const DONE = "data: [DONE]\n\n"

function event(data: string): string {
  return `data: ${data}\n\n`
}

abstract class BaseFormat {
  readonly tellsCounts: boolean
  protected readonly options: FormatOptions
  readonly #chunk: { prefix: string; object: string }
  readonly #created = Math.floor(Date.now() / 1000)
  readonly #head: string
  readonly #tail: string

  constructor(options: FormatOptions, chunk: { prefix: string; object: string }) {
    this.options = options
    this.tellsCounts = options.continuousUsage === true
    this.#chunk = chunk
    // Everything before the choice, and after it, of a chunk.
    this.#head = `${JSON.stringify(this.envelope(chunk.prefix, chunk.object)).slice(0, -1)},"choices":[{"index":`
    // With include_usage every chunk has the field: null until the last.
    this.#tail = options.includeUsage ? `}],"usage":null` : "}]"
  }

  protected envelope(prefix: string, object: string): Record<string, unknown> {
    const { id, model } = this.options
    return { id: `${prefix}-${id}`, object, created: this.#created, model }
  }

  /** A chunk around the fields of its choice. */
  protected chunkText(choice: number, fields: string, usage: string | null = null): string {
    if (usage === null) return `data: ${this.#head}${choice},${fields}${this.#tail}}\n\n`
    return event(`${this.#head}${choice},${fields}}],"usage":${usage}}`)
  }

  protected closingText(choice: number, fields: string, end: Finished): string {
    const { slo } = this.options
    const own = this.#alone ? "" : `,"metrics":${JSON.stringify(this.#metrics(end))}`
    const all = this.#alone ? `,"metrics":${JSON.stringify(this.#metrics(end))}` : ""
    const tier = `,"service_tier":"${serviceTier([end.outcome], slo)}"`
    return event(`${this.#head}${choice},${fields}${own}${this.#tail}${tier}${all}}`)
  }

  last(ends: readonly Finished[]): string {
    if (!this.options.includeUsage) return DONE
    const { prefix, object } = this.#chunk
    return (
      event(JSON.stringify({ ...this.envelope(prefix, object), choices: [], ...this.#ending(ends) })) + DONE
    )
  }

  failure(error: UserError): string {
    return event(JSON.stringify(errorBody(error))) + DONE
  }

  protected wholeObject(
    prefix: string,
    object: string,
    choices: readonly object[],
    ends: readonly Finished[],
  ): object {
    const told = choices.map((choice, index) => ({
      index,
      ...choice,
      finish_reason: ends[index]!.reason,
      ...(this.#alone ? {} : { metrics: this.#metrics(ends[index]!) }),
    }))
    return { ...this.envelope(prefix, object), choices: told, ...this.#ending(ends) }
  }

  protected usageSoFar({ promptTokens, completionTokens }: AnswerDelta): string | null {
    if (this.options.continuousUsage !== true) return null
    const total = promptTokens + completionTokens
    return JSON.stringify({
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: total,
    })
  }

  protected token({ bytes, control }: Omit<TextLogprob, "top">): { token: string; bytes: number[] } {
    return { token: control ?? new TextDecoder().decode(bytes), bytes: [...bytes] }
  }

  /** Metrics belong to a choice; of a single one they stand beside it. */
  get #alone(): boolean {
    return (this.options.choices ?? 1) === 1
  }

  #metrics({ outcome, usage, delivered }: Finished): object {
    const { slo, ignored = [] } = this.options
    return { ...metricsJson(outcome, slo, usage, delivered), ...(ignored.length > 0 && { ignored }) }
  }

  #ending(ends: readonly Finished[]): object {
    const { slo, perPrompt } = this.options
    return {
      usage: usageJson(
        ends.map((end) => end.usage),
        perPrompt ?? 1,
      ),
      service_tier: serviceTier(
        ends.map((end) => end.outcome),
        slo,
      ),
      ...(this.#alone ? { metrics: this.#metrics(ends[0]!) } : {}),
    }
  }
}

const CHAT_CHUNK = { prefix: "chatcmpl", object: "chat.completion.chunk" }

export class ChatFormat extends BaseFormat implements Format {
  constructor(options: FormatOptions) {
    super(options, CHAT_CHUNK)
  }

  opening(choice: number): string {
    return this.chunkText(choice, `"delta":{"role":"assistant","content":""},${NO_LOGPROBS},${NOT_YET}`)
  }

  chunk(delta: AnswerDelta, choice: number): string {
    const usage = this.usageSoFar(delta)
    const plain = delta.reasoning === "" && delta.toolCalls.length === 0 && delta.content !== ""
    const told = plain ? `{"content":${JSON.stringify(delta.content)}}` : JSON.stringify(this.#content(delta))
    const logprobs = `"logprobs":${JSON.stringify(this.#logprobs(delta.logprobs))}`
    return this.chunkText(choice, `"delta":${told},${logprobs},${NOT_YET}`, usage)
  }

  closing(end: Finished, choice: number): string {
    return this.closingText(choice, `"delta":{},${NO_LOGPROBS},"finish_reason":"${end.reason}"`, end)
  }

  whole(all: readonly AnswerDelta[], ends: readonly Finished[]): object {
    const choices = all.map((one) => {
      const calls = one.toolCalls.map(({ name, arguments: given }) => ({
        ...{ id: newId("call"), type: "function" },
        function: { name, arguments: given },
      }))
      const message = {
        role: "assistant",
        content: calls.length > 0 && one.content.trim() === "" ? null : one.content,
        refusal: null,
        ...(one.reasoning === "" ? {} : { reasoning_content: one.reasoning }),
        ...(calls.length === 0 ? {} : { tool_calls: calls }),
      }
      return { message, logprobs: this.#logprobs(one.logprobs) }
    })
    return this.wholeObject("chatcmpl", "chat.completion", choices, ends)
  }

  #content(delta: AnswerDelta): object {
    const calls = delta.toolCalls.map(toolCallChunk)
    return {
      ...(delta.reasoning === "" ? {} : { reasoning_content: delta.reasoning }),
      ...(delta.content === "" && !isCount(delta) ? {} : { content: delta.content }),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    }
  }

  #logprobs(logprobs: readonly TextLogprob[]): object | null {
    if (logprobs.length === 0) return null
    const content = logprobs.map((entry) => ({
      ...this.token(entry),
      logprob: entry.logprob,
      top_logprobs: wanted(entry).map((other) => ({ ...this.token(other), logprob: other.logprob })),
    }))
    return { content, refusal: null }
  }
}

/** Id and name come first, and arguments as they are written. */
function toolCallChunk({ index, name, arguments: given }: CallDelta): object {
  if (name === null) return { index, function: { arguments: given } }
  return { index, id: newId("call"), type: "function", function: { name, arguments: given } }
}

const TEXT = { prefix: "cmpl", object: "text_completion" }

/** The prompts, where they are to be repeated before each answer; `scored`: with the log-probabilities of their tokens. */
export interface Echo {
  prompts: readonly string[]
  scored: boolean
}

export class CompletionFormat extends BaseFormat implements Format {
  /** By choice. */
  readonly #writers = new Map<number, ColumnWriter>()
  readonly #echo: Echo | null

  constructor(options: FormatOptions & { echo?: Echo | null }) {
    super(options, TEXT)
    this.#echo = options.echo ?? null
  }

  /** A prompt with log-probabilities comes with the first chunk that has them. */
  opening(choice: number): string {
    if (this.#echo === null || this.#echo.scored) return ""
    return this.chunkText(choice, `"text":${JSON.stringify(this.#prompt(choice))},${NO_LOGPROBS},${NOT_YET}`)
  }

  chunk(delta: AnswerDelta, choice: number): string {
    const logprobs = JSON.stringify(this.#logprobs(delta, choice))
    const text = delta.prompt === undefined ? delta.content : this.#prompt(choice) + delta.content
    const fields = `"text":${JSON.stringify(text)},"logprobs":${logprobs},${NOT_YET}`
    return this.chunkText(choice, fields, this.usageSoFar(delta))
  }

  closing(end: Finished, choice: number): string {
    return this.closingText(choice, `"text":"",${NO_LOGPROBS},"finish_reason":"${end.reason}"`, end)
  }

  whole(all: readonly AnswerDelta[], ends: readonly Finished[]): object {
    const choices = all.map((one, choice) => ({
      text: this.#prompt(choice) + one.content,
      logprobs: this.#logprobs(one, choice),
    }))
    return this.wholeObject(TEXT.prefix, TEXT.object, choices, ends)
  }

  #prompt(choice: number): string {
    return this.#echo?.prompts[Math.floor(choice / (this.options.perPrompt ?? 1))] ?? ""
  }

  #logprobs({ logprobs, prompt }: AnswerDelta, choice: number): LogprobColumns | null {
    if (logprobs.length === 0 && prompt === undefined) return null
    const writer = this.#writers.get(choice) ?? new ColumnWriter(this.#prompt(choice))
    this.#writers.set(choice, writer)
    const answer = writer.answer(logprobs)
    return prompt === undefined ? answer : joinColumns(promptColumns(this.#prompt(choice), prompt), answer)
  }
}

/** The engine is asked for one more than the client wants: 0 would mean none at all. */
const wanted = ({ top }: TextLogprob) => top.slice(0, -1)

const NO_LOGPROBS = '"logprobs":null'
const NOT_YET = '"finish_reason":null'
