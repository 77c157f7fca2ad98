/** Messages of the Messages API, whole and as events. */
import type { UserError } from "../../errors.ts"
import type { ResolvedSlo } from "../../serve/slo-resolve.ts"
import type { AnswerDelta, Usage } from "../../text/answer.ts"
import { type Block, Blocks } from "../blocks.ts"
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

/** A block that is being written. */
interface Open extends Block {
  /** Of a call. */
  id: string
}

export class MessagesFormat implements Format {
  readonly #options: MessageOptions
  readonly #blocks: Blocks<Open>
  #started = false
  #events = ""

  constructor(options: MessageOptions) {
    this.#options = options
    this.#blocks = new Blocks<Open>({
      made: (block) => ({ ...block, id: newId("toolu") }),
      begun: (block) =>
        this.#tell("content_block_start", { index: this.#index, content_block: this.#blockJson(block) }),
      wentOn: (block, piece) => this.#wentOn(block, piece),
      ended: (block) => this.#ended(block),
    })
  }

  opening(): string {
    // With the first text: how long the prompt is is known then.
    return ""
  }

  chunk(delta: AnswerDelta): string {
    this.#start(delta.promptTokens)
    this.#blocks.push(delta)
    return this.#take()
  }

  closing(end: Finished): string {
    this.#start(end.usage.promptTokens)
    this.#blocks.end()
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
    this.#blocks.push(all!)
    this.#blocks.end()
    return {
      ...this.#envelope,
      content: this.#blocks.all.map((block) => this.#blockJson(block)),
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

  #wentOn({ kind }: Open, piece: string): void {
    if (kind === "call") this.#goOn({ type: "input_json_delta", partial_json: piece })
    else if (kind === "text") this.#goOn({ type: "text_delta", text: piece })
    else if (!this.#options.hidesThoughts) this.#goOn({ type: "thinking_delta", thinking: piece })
  }

  #goOn(delta: object): void {
    this.#tell("content_block_delta", { index: this.#index, delta })
  }

  #ended({ kind }: Open): void {
    if (kind === "thoughts") this.#goOn({ type: "signature_delta", signature: "" })
    this.#tell("content_block_stop", { index: this.#index })
  }

  #blockJson({ kind, text, call, id }: Open): object {
    if (kind === "text") return { type: "text", text, citations: null }
    if (kind === "call")
      return { type: "tool_use", id, name: call!.name, input: inputOf(text), caller: { type: "direct" } }
    return { type: "thinking", thinking: this.#options.hidesThoughts ? "" : text, signature: "" }
  }

  get #index(): number {
    return this.#blocks.all.length - 1
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

/** Of a call that was cut off there is no object. */
function inputOf(json: string): unknown {
  try {
    return json === "" ? {} : JSON.parse(json)
  } catch {
    return {}
  }
}
