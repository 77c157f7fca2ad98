/** Messages of the Messages API, whole and as events. */
import type { UserError } from "../../errors.ts"
import type { ResolvedSlo } from "../../serve/slo-resolve.ts"
import type { AnswerDelta, Usage } from "../../text/answer.ts"
import type { CallDelta } from "../../text/tools/parts.ts"
import type { Finished, Format } from "../format.ts"
import { newId } from "../ids.ts"
import { metricsJson, serviceTier } from "../result.ts"
import { anthropicError } from "./errors.ts"

export interface MessageOptions {
  /** The request's. */
  id: string
  model: string
  slo: ResolvedSlo
  /** As it was asked for; the context may end before. */
  maxTokens: number
  /** Thoughts are shown to have been, without their text. */
  hidesThoughts: boolean
  /** Fields of the request that were accepted and have no effect. */
  ignored: readonly string[]
}

type Kind = "thinking" | "text" | "tool_use"

/** A block that is being written. */
interface Block {
  kind: Kind
  /** Its text, or the JSON of its input. */
  text: string
  /** Of a call. */
  call: { index: number; id: string; name: string } | null
}

export class MessagesFormat implements Format {
  readonly #options: MessageOptions
  readonly #blocks: Block[] = []
  #open: Block | null = null
  #started = false
  /** White space that is text only if more follows: not before a call. */
  #space = ""
  #events = ""

  constructor(options: MessageOptions) {
    this.#options = options
  }

  opening(): string {
    // With the first text: how long the prompt is is known then.
    return ""
  }

  chunk(delta: AnswerDelta): string {
    this.#start(delta.promptTokens)
    this.#push(delta)
    return this.#take()
  }

  closing(end: Finished): string {
    this.#start(end.usage.promptTokens)
    this.#finish()
    this.#tell("message_delta", {
      delta: this.#stopOf(end),
      usage: usageOf(end.usage),
      ...this.#about(end),
    })
    this.#tell("message_stop", {})
    return this.#take()
  }

  last(): string {
    return ""
  }

  failure(error: UserError): string {
    const { type, ...body } = anthropicError(error, this.#options.id) as { type: string }
    this.#tell(type, body)
    return this.#take()
  }

  heartbeat(): string {
    this.#tell("ping", {})
    return this.#take()
  }

  whole([all]: readonly AnswerDelta[], [end]: readonly Finished[]): object {
    this.#push(all!)
    this.#finish()
    return {
      ...this.#envelope,
      content: this.#blocks.map(blockJson),
      ...this.#stopOf(end!),
      usage: { ...usageOf(end!.usage), service_tier: this.#tier(end!) },
      ...this.#about(end!),
    }
  }

  get #envelope(): object {
    const { id, model } = this.#options
    return { id: `msg_${id}`, type: "message", role: "assistant", model, container: null, diagnostics: null }
  }

  #stopOf({ reason, stop, usage }: Finished): object {
    const none = { stop_sequence: null, stop_details: null }
    if (reason === "stop" && stop !== undefined)
      return { ...none, stop_reason: "stop_sequence", stop_sequence: stop }
    if (reason === "length" && usage.completionTokens < this.#options.maxTokens)
      return { ...none, stop_reason: "model_context_window_exceeded" }
    return { ...none, stop_reason: REASONS[reason] }
  }

  #about({ outcome, usage, delivered }: Finished): object {
    const { slo, ignored } = this.#options
    const metrics = metricsJson(outcome, slo, usage, delivered)
    return { metrics: { ...metrics, ...(ignored.length > 0 && { ignored }) } }
  }

  #tier({ outcome }: Finished): string {
    const tier = serviceTier([outcome], this.#options.slo)
    return tier === "default" ? "standard" : tier
  }

  #start(promptTokens: number): void {
    if (this.#started) return
    this.#started = true
    const usage = { ...NO_USAGE, input_tokens: promptTokens }
    const nothing = { content: [], stop_reason: null, stop_sequence: null, usage }
    this.#tell("message_start", { message: { ...this.#envelope, ...nothing } })
    this.#tell("ping", {})
  }

  #push({ reasoning, content, toolCalls }: AnswerDelta): void {
    if (reasoning !== "") this.#write("thinking", reasoning)
    const calls = [...toolCalls]
    // What goes on with a call was written before the text that came with it.
    while (calls[0]?.name === null) this.#call(calls.shift()!)
    if (content !== "") this.#say(content)
    for (const call of calls) this.#call(call)
  }

  #finish(): void {
    const called = this.#blocks.some(({ kind }) => kind === "tool_use")
    if (this.#space !== "" && !called) this.#write("text", this.#space)
    this.#close()
  }

  #say(text: string): void {
    const all = this.#space + text
    this.#space = ""
    if (this.#open?.kind !== "text" && all.trim() === "") this.#space = all
    else this.#write("text", all)
  }

  #call({ index, name, arguments: given }: CallDelta): void {
    if (name !== null) {
      this.#space = ""
      this.#begin("tool_use", { index, id: newId("toolu"), name })
    }
    const open = this.#open
    if (given === "" || open?.call?.index !== index) return
    open.text += given
    this.#goOn({ type: "input_json_delta", partial_json: given })
  }

  #write(kind: "thinking" | "text", text: string): void {
    if (this.#open?.kind !== kind) this.#begin(kind)
    if (kind === "thinking" && this.#options.hidesThoughts) return
    this.#open!.text += text
    this.#goOn(kind === "text" ? { type: "text_delta", text } : { type: "thinking_delta", thinking: text })
  }

  #begin(kind: Kind, call: Block["call"] = null): void {
    this.#close()
    const block: Block = { kind, text: "", call }
    this.#open = block
    this.#blocks.push(block)
    this.#tell("content_block_start", { index: this.#index, content_block: blockJson(block) })
  }

  #goOn(delta: object): void {
    this.#tell("content_block_delta", { index: this.#index, delta })
  }

  #close(): void {
    const open = this.#open
    if (open === null) return
    this.#open = null
    if (open.kind === "thinking") this.#goOn({ type: "signature_delta", signature: "" })
    this.#tell("content_block_stop", { index: this.#index })
  }

  get #index(): number {
    return this.#blocks.length - 1
  }

  #tell(type: string, fields: object): void {
    this.#events += `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`
  }

  #take(): string {
    const events = this.#events
    this.#events = ""
    return events
  }
}

const NO_USAGE = {
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
  cache_creation: null,
  server_tool_use: null,
  inference_geo: null,
  speed: null,
  output_tokens: 0,
}

/** What came of the cache is no part of the input tokens. */
function usageOf({ promptTokens, cachedTokens, completionTokens, reasoningTokens }: Usage): object {
  return {
    input_tokens: promptTokens - cachedTokens,
    ...NO_USAGE,
    cache_read_input_tokens: cachedTokens,
    output_tokens: completionTokens,
    output_tokens_details: { thinking_tokens: reasoningTokens },
  }
}

const REASONS = { stop: "end_turn", length: "max_tokens", tool_calls: "tool_use" } as const

function blockJson({ kind, text, call }: Block): object {
  if (kind === "text") return { type: "text", text, citations: null }
  if (kind === "thinking") return { type: "thinking", thinking: text, signature: "" }
  const { id, name } = call!
  return { type: "tool_use", id, name, input: inputOf(text), caller: { type: "direct" } }
}

/** Of a call that was cut off there is no object. */
function inputOf(json: string): unknown {
  try {
    return json === "" ? {} : JSON.parse(json)
  } catch {
    return {}
  }
}
