/** Responses of the Responses API, whole and as events. A response is one answer. */
import type { UserError } from "../../errors.ts"
import type { ResolvedSlo } from "../../serve/slo-resolve.ts"
import type { AnswerDelta, Usage } from "../../text/answer.ts"
import type { Finished, Format } from "../format.ts"
import { metricsJson, serviceTier } from "../result.ts"
import { ResponseOutput } from "./output.ts"
import type { ResponsesBody } from "./schema.ts"

export interface ResponseOptions {
  id: string
  model: string
  body: ResponsesBody
  slo: ResolvedSlo
  stream: boolean
  /** It will be kept. */
  stored: boolean
  /** Fields of the request that were accepted and have no effect. */
  ignored: readonly string[]
  /** Takes the response when it is whole. */
  done: (response: ResponseObject) => void
}

export type ResponseObject = Record<string, unknown> & { id: string; output: readonly object[] }

export class ResponsesFormat implements Format {
  readonly #options: ResponseOptions
  readonly #base: ResponseObject
  readonly #output: ResponseOutput
  /** Events of the stream that are not told yet. */
  #events = ""
  #sequence = 0

  constructor(options: ResponseOptions) {
    this.#options = options
    this.#base = baseOf(options)
    const { reasoning, include } = options.body
    const asSummary = Boolean(reasoning?.summary)
    const isSealed = include?.includes("reasoning.encrypted_content") ?? false
    this.#output = new ResponseOutput({ asSummary, isSealed }, options.stream ? this.#tell : () => {})
  }

  opening(): string {
    this.#tell("response.created", { response: this.#base })
    this.#tell("response.in_progress", { response: this.#base })
    return this.#take()
  }

  chunk(delta: AnswerDelta): string {
    this.#output.push(delta)
    return this.#take()
  }

  closing(end: Finished): string {
    const response = this.#ended(end)
    this.#tell(`response.${response.status}`, { response })
    return this.#take()
  }

  last(): string {
    return ""
  }

  failure({ code, message }: UserError): string {
    const error = { code: code ?? "server_error", message }
    const response = { ...this.#base, status: "failed", error, output: this.#output.items }
    this.#tell("response.failed", { response })
    return this.#take()
  }

  whole([all]: readonly AnswerDelta[], [end]: readonly Finished[]): object {
    this.#output.push(all!)
    return this.#ended(end!)
  }

  #tell = (type: string, fields: Readonly<Record<string, unknown>>): void => {
    const data = JSON.stringify({ type, sequence_number: this.#sequence++, ...fields })
    this.#events += `event: ${type}\ndata: ${data}\n\n`
  }

  #take(): string {
    const events = this.#events
    this.#events = ""
    return events
  }

  #ended({ reason, usage, outcome, delivered }: Finished): ResponseObject {
    const { slo, ignored, done } = this.#options
    const status = reason === "length" ? "incomplete" : "completed"
    this.#output.end(status)
    const response = {
      ...this.#base,
      status,
      ...(status === "completed" && { completed_at: unixSeconds() }),
      incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
      output: this.#output.items,
      usage: usageOf(usage),
      service_tier: serviceTier([outcome], slo),
      metrics: {
        ...metricsJson(outcome, slo, usage, delivered),
        ...(ignored.length > 0 && { ignored }),
      },
    }
    done(response)
    return response
  }
}

function usageOf({ promptTokens, cachedTokens, completionTokens, reasoningTokens }: Usage): object {
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: completionTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens },
    total_tokens: promptTokens + completionTokens,
  }
}

function baseOf({ id, model, body, stored }: ResponseOptions): ResponseObject {
  const { reasoning } = body
  return {
    id,
    object: "response",
    created_at: unixSeconds(),
    status: "in_progress",
    background: false,
    error: null,
    incomplete_details: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    model,
    output: [],
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: body.previous_response_id ?? null,
    prompt_cache_key: body.prompt_cache_key ?? null,
    reasoning: { effort: reasoning?.effort ?? null, summary: reasoning?.summary ?? null },
    safety_identifier: body.safety_identifier ?? null,
    service_tier: body.service_tier ?? "auto",
    store: stored,
    temperature: body.temperature ?? null,
    text: { format: body.text?.format ?? { type: "text" }, verbosity: "medium" },
    tool_choice: body.tool_choice ?? "auto",
    tools: body.tools ?? [],
    top_logprobs: body.top_logprobs ?? 0,
    top_p: body.top_p ?? null,
    truncation: body.truncation ?? "disabled",
    usage: null,
    user: body.user ?? null,
    metadata: body.metadata ?? {},
  }
}

function unixSeconds(): number {
  return Math.floor(Date.now() / 1000)
}
