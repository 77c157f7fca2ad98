/** One streaming completion over HTTP/1.1 keep-alive, its tokens timed as they arrive. node:http and not fetch:
 * the generator shares the machine with the server, and web streams cost several times as much per chunk. */
import * as http from "node:http"
import * as https from "node:https"
import { UserError } from "../errors.ts"
import type { RoundSlo } from "./classes.ts"
import { SseParser } from "./sse.ts"

/** Decides only which extras the body carries. */
export const TARGET_KINDS = ["slos-serve", "llama-server", "vllm", "openai"] as const
export type TargetKind = (typeof TARGET_KINDS)[number]

export interface Target {
  /** Base URL, without /v1. */
  url: string
  kind: TargetKind
  model: string
  apiKey?: string | undefined
}

export interface CompletionRequest {
  prompt: number[]
  outputTokens: number
  thinkingTokens: number
  slo: RoundSlo
  /** Name of the SLO class, for servers that learn per class; null = do not say. */
  class: string | null
  session: string | null
}

export type CompletionEnd =
  /** The stream came to its proper end. */
  | "ok"
  /** Turned away: 429 or 503. */
  | "rejected"
  /** Any other HTTP status, or an error inside the stream. */
  | "error"
  /** The connection failed or the stream broke off. */
  | "disconnected"
  | "timeout"
  /** Given up by the generator. */
  | "abandoned"

export interface CompletionResult {
  end: CompletionEnd
  /** HTTP status, 0 when there was none. */
  status: number
  message: string
  /** Tokens by the server's own usage, null when it did not say. */
  usageTokens: number | null
  /** Tokens that only the closing usage revealed: their true times are unknown (they count as arriving last). */
  untimedTokens: number
}

export interface Connections {
  agent: http.Agent
  request: typeof http.request
}

export function connect(url: string): Connections {
  const secure = url.startsWith("https:")
  const options = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY, noDelay: true }
  return secure
    ? { agent: new https.Agent(options), request: https.request }
    : { agent: new http.Agent(options), request: http.request }
}

/** The body of a completion with forced lengths, in the words of the server. */
export function bodyOf(target: Target, request: CompletionRequest): Record<string, unknown> {
  const body: Record<string, unknown> = {
    model: target.model,
    prompt: request.prompt,
    max_tokens: request.outputTokens,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  }
  if (target.kind === "openai") return body
  body.ignore_eos = true
  if (target.kind === "llama-server") {
    // Counts in every chunk, and the cheapest sampler chain that is greedy.
    return { ...body, timings_per_token: true, cache_prompt: true, samplers: ["top_k"], top_k: 1 }
  }
  body.stream_options = { include_usage: true, continuous_usage_stats: true }
  if (target.kind === "vllm") return body
  const slo: Record<string, unknown> = {}
  if (Number.isFinite(request.slo.ttftMs)) slo.ttft_ms = request.slo.ttftMs
  if (Number.isFinite(request.slo.tpotMs)) slo.tpot_ms = request.slo.tpotMs
  if (Number.isFinite(request.slo.maxGapMs)) slo.max_gap_ms = request.slo.maxGapMs
  if (request.thinkingTokens > 0) {
    if (Number.isFinite(request.slo.thinkingTpotMs)) slo.thinking_tpot_ms = request.slo.thinkingTpotMs
    slo.thinking_tokens = request.thinkingTokens
  }
  if (request.class !== null) slo.class = request.class
  if (request.session !== null) slo.session = request.session
  return { ...body, slo }
}

interface Chunk {
  choices?: { text?: string; finish_reason?: string | null; delta?: { content?: string } }[]
  usage?: { completion_tokens?: number } | null
  timings?: { predicted_n?: number }
  error?: { message?: string }
}

/** Sends one completion. `onTokens(count)` is called as tokens arrive; never rejects. */
export function complete(
  connections: Connections,
  target: Target,
  request: CompletionRequest,
  options: { timeoutMs: number; onTokens(count: number): void; signal?: AbortSignal },
): Promise<CompletionResult> {
  const result: CompletionResult = {
    end: "disconnected",
    status: 0,
    message: "",
    usageTokens: null,
    untimedTokens: 0,
  }
  return new Promise((resolve) => {
    let open = true
    const body = JSON.stringify(bodyOf(target, request))
    const finish = (end: CompletionEnd, message = "") => {
      if (!open) return
      open = false
      clearTimeout(timer)
      options.signal?.removeEventListener("abort", abandon)
      resolve({ ...result, end, message })
      if (end !== "ok" && end !== "rejected") outgoing.destroy()
    }
    const headers: http.OutgoingHttpHeaders = {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      accept: "text/event-stream",
    }
    if (target.apiKey !== undefined) headers.authorization = `Bearer ${target.apiKey}`
    const outgoing = connections.request(`${target.url}/v1/completions`, {
      method: "POST",
      agent: connections.agent,
      headers,
    })
    const abandon = () => finish("abandoned")
    const timer = setTimeout(
      () => finish("timeout", `no end within ${options.timeoutMs} ms`),
      options.timeoutMs,
    )
    options.signal?.addEventListener("abort", abandon)
    outgoing.on("error", (error) => finish("disconnected", error.message))
    outgoing.on("response", (response) => {
      result.status = response.statusCode ?? 0
      response.on("error", (error) => finish("disconnected", error.message))
      response.on("aborted", () => finish("disconnected", "the server closed the connection in mid-answer"))
      if (result.status === 200) readStream(response, result, options.onTokens, finish)
      else readError(response, result.status, finish)
    })
    if (options.signal?.aborted) abandon()
    else outgoing.end(body)
  })
}

function readStream(
  response: http.IncomingMessage,
  result: CompletionResult,
  onTokens: (count: number) => void,
  finish: (end: CompletionEnd, message?: string) => void,
): void {
  const parser = new SseParser()
  let counted = 0
  let finishReason: string | null = null
  let done = false
  const take = (count: number) => {
    if (count <= 0) return
    counted += count
    onTokens(count)
  }
  const read = (data: string) => {
    if (data === "[DONE]") {
      done = true
      return
    }
    const chunk = JSON.parse(data) as Chunk
    if (chunk.error !== undefined) return finish("error", chunk.error.message ?? data.slice(0, 200))
    const choice = chunk.choices?.[0]
    finishReason = choice?.finish_reason ?? finishReason
    const cumulative = chunk.usage?.completion_tokens ?? chunk.timings?.predicted_n
    if (typeof chunk.usage?.completion_tokens === "number") result.usageTokens = chunk.usage.completion_tokens
    if (typeof cumulative === "number") {
      if (choice === undefined || (choice.finish_reason && !choice.text)) {
        // The last token and the closing chunk leave the server together.
        result.untimedTokens += Math.max(0, cumulative - counted - 1)
      }
      take(cumulative - counted)
    } else if (choice !== undefined && (choice.text || choice.delta?.content || !choice.finish_reason)) {
      take(1)
    }
  }
  response.on("data", (bytes: Buffer) => {
    try {
      for (const data of parser.push(bytes)) read(data)
    } catch {
      finish("error", "a chunk of the stream is not JSON")
    }
  })
  response.on("end", () => {
    if (done || finishReason !== null) finish("ok")
    else finish("disconnected", "the stream ended without finish_reason or [DONE]")
  })
}

function readError(
  response: http.IncomingMessage,
  status: number,
  finish: (end: CompletionEnd, message?: string) => void,
): void {
  let text = ""
  response.setEncoding("utf8")
  response.on("data", (part: string) => {
    if (text.length < 2000) text += part
  })
  response.on("end", () => {
    let message = text.slice(0, 200)
    try {
      message = (JSON.parse(text) as Chunk).error?.message ?? message
    } catch {
      // Not JSON: the text itself is the message.
    }
    finish(status === 429 || status === 503 ? "rejected" : "error", `HTTP ${status}: ${message}`)
  })
}

/** The name of the served model, by GET /v1/models. Throws a UserError when the URL does not answer as an
 * OpenAI-compatible server. */
export async function probeModel(url: string, apiKey: string | undefined): Promise<string> {
  let response: Response
  try {
    const headers: Record<string, string> = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }
    response = await fetch(`${url}/v1/models`, { headers, signal: AbortSignal.timeout(10_000) })
  } catch (error) {
    const cause = (error as Error).cause as { code?: string; message?: string } | undefined
    const detail = cause?.code ?? cause?.message ?? (error as Error).message
    throw new UserError(`cannot reach ${url} (${detail}); start the server or mend --url`)
  }
  if (!response.ok) {
    throw new UserError(
      `${url}/v1/models answered ${response.status}; --url must be an OpenAI-compatible server (without /v1)`,
    )
  }
  try {
    const list = (await response.json()) as { data?: { id?: string }[] }
    return list.data?.[0]?.id ?? "default"
  } catch {
    throw new UserError(
      `${url}/v1/models is not JSON; --url must be an OpenAI-compatible server (without /v1)`,
    )
  }
}
