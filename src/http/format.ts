/** Responses of the two generation endpoints, whole and in chunks, as OpenAI's. */
import type { Tokenizer, TokenLogprob } from "../engine/engine.ts"
import type { SessionDelta, SessionEnd } from "../serve/session.ts"
import type { ResolvedSlo } from "../serve/slo-resolve.ts"
import { metricsJson, serviceTier, usageJson } from "./result.ts"

export type Finished = Extract<SessionEnd, { kind: "finished" }>

export interface FormatOptions {
  /** The response's id, without prefix. */
  id: string
  model: string
  slo: ResolvedSlo
  tokenizer: Tokenizer
  /** Streams end with a usage chunk. */
  includeUsage: boolean
  /** Every chunk says how many tokens there are so far (vLLM's continuous_usage_stats). */
  continuousUsage?: boolean
}

export interface Format {
  /** First chunk, before any text; null when there is none. */
  opening(): object | null
  chunk(delta: SessionDelta): object
  closing(end: Finished): object[]
  whole(all: SessionDelta, end: Finished): object
}

abstract class BaseFormat {
  protected readonly options: FormatOptions
  readonly #created = Math.floor(Date.now() / 1000)

  constructor(options: FormatOptions) {
    this.options = options
  }

  protected envelope(prefix: string, object: string): Record<string, unknown> {
    const { id, model } = this.options
    return { id: `${prefix}-${id}`, object, created: this.#created, model }
  }

  protected ending(end: Finished): Record<string, unknown> {
    const { slo } = this.options
    return { service_tier: serviceTier(end.outcome, slo), metrics: metricsJson(end.outcome, slo) }
  }

  /** With include_usage every chunk has the field: null until the last. */
  protected get noUsage(): object {
    return this.options.includeUsage ? { usage: null } : {}
  }

  protected usageSoFar({ promptTokens, completionTokens }: SessionDelta): object {
    if (this.options.continuousUsage !== true) return this.noUsage
    const total = promptTokens + completionTokens
    return {
      usage: { prompt_tokens: promptTokens, completion_tokens: completionTokens, total_tokens: total },
    }
  }

  protected closingChunks(empty: Record<string, unknown>, choice: object, end: Finished): object[] {
    const last = { ...empty, choices: [choice], ...this.noUsage, ...this.ending(end) }
    if (!this.options.includeUsage) return [last]
    return [last, { ...empty, choices: [], usage: usageJson(end.usage), ...this.ending(end) }]
  }

  protected token(token: number): { token: string; bytes: number[] } {
    const bytes = this.options.tokenizer.bytes(token)
    return { token: new TextDecoder().decode(bytes), bytes: [...bytes] }
  }
}

export class ChatFormat extends BaseFormat implements Format {
  #toolCalls = 0

  opening(): object {
    return this.#chunk({ role: "assistant", content: "" }, null)
  }

  chunk(delta: SessionDelta): object {
    const calls = delta.toolCalls.map((call) => this.#toolCall(call, true))
    const content = {
      ...(delta.reasoning === "" ? {} : { reasoning_content: delta.reasoning }),
      ...(delta.content === "" ? {} : { content: delta.content }),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    }
    return { ...this.#chunk(content, this.#logprobs(delta.logprobs)), ...this.usageSoFar(delta) }
  }

  closing(end: Finished): object[] {
    const choice = { index: 0, delta: {}, logprobs: null, finish_reason: end.reason }
    return this.closingChunks(this.envelope("chatcmpl", "chat.completion.chunk"), choice, end)
  }

  whole(all: SessionDelta, end: Finished): object {
    const calls = all.toolCalls.map((call) => this.#toolCall(call, false))
    const message = {
      role: "assistant",
      content: calls.length > 0 && all.content.trim() === "" ? null : all.content,
      refusal: null,
      ...(all.reasoning === "" ? {} : { reasoning_content: all.reasoning }),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    }
    return {
      ...this.envelope("chatcmpl", "chat.completion"),
      choices: [{ index: 0, message, logprobs: this.#logprobs(all.logprobs), finish_reason: end.reason }],
      usage: usageJson(end.usage),
      ...this.ending(end),
    }
  }

  #chunk(delta: object, logprobs: object | null): object {
    const choices = [{ index: 0, delta, logprobs, finish_reason: null }]
    return { ...this.envelope("chatcmpl", "chat.completion.chunk"), choices, ...this.noUsage }
  }

  #toolCall(call: { name: string; arguments: string }, streamed: boolean): object {
    const index = this.#toolCalls++
    const id = `call_${this.options.id.replace(/[^A-Za-z0-9]/g, "").slice(-12)}_${index}`
    return { ...(streamed ? { index } : {}), id, type: "function", function: call }
  }

  #logprobs(logprobs: readonly TokenLogprob[]): object | null {
    if (logprobs.length === 0) return null
    const content = logprobs.map((entry) => ({
      ...this.token(entry.token),
      logprob: entry.logprob,
      top_logprobs: entry.top.map((other) => ({ ...this.token(other.token), logprob: other.logprob })),
    }))
    return { content, refusal: null }
  }
}

export class CompletionFormat extends BaseFormat implements Format {
  #offset = 0

  opening(): null {
    return null
  }

  chunk(delta: SessionDelta): object {
    const choice = {
      index: 0,
      text: delta.content,
      logprobs: this.#logprobs(delta.logprobs),
      finish_reason: null,
    }
    return { ...this.envelope("cmpl", "text_completion"), choices: [choice], ...this.usageSoFar(delta) }
  }

  closing(end: Finished): object[] {
    const choice = { index: 0, text: "", logprobs: null, finish_reason: end.reason }
    return this.closingChunks(this.envelope("cmpl", "text_completion"), choice, end)
  }

  whole(all: SessionDelta, end: Finished): object {
    const logprobs = this.#logprobs(all.logprobs)
    return {
      ...this.envelope("cmpl", "text_completion"),
      choices: [{ index: 0, text: all.content, logprobs, finish_reason: end.reason }],
      usage: usageJson(end.usage),
      ...this.ending(end),
    }
  }

  #logprobs(logprobs: readonly TokenLogprob[]): object | null {
    if (logprobs.length === 0) return null
    const tokens = logprobs.map((entry) => this.token(entry.token).token)
    const offsets = tokens.map((token) => (this.#offset += token.length) - token.length)
    const top = logprobs.map((entry) =>
      Object.fromEntries(entry.top.map((other) => [this.token(other.token).token, other.logprob])),
    )
    return {
      tokens,
      token_logprobs: logprobs.map((entry) => entry.logprob),
      top_logprobs: top,
      text_offset: offsets,
    }
  }
}
