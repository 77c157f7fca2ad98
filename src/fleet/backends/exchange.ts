/** One request to an engine and its streamed answer. Ends exactly once, whatever the network or the engine does. */
import type { Readable } from "node:stream"
import { createParser } from "eventsource-parser"
import { type Dispatcher, request } from "undici"
import { type UserError, UserError as Wrong } from "../../errors.ts"
import { AnswerReader, Malformed, type ReadStep, type ReadUsage } from "./answer-reader.ts"
import type { Ask } from "./ask.ts"

export type ExchangeEnd =
  | { kind: "finished"; reason: "stop" | "length" | "tool_calls"; usage: ReadUsage }
  /** The request is at fault: its client is told. */
  | { kind: "failed"; error: UserError }
  /** The engine takes nothing just now; `retryAfterMs`: it said for how long. */
  | { kind: "busy"; detail: string; retryAfterMs: number | null }
  /** The gateway is at fault: a wrong key or model name in its configuration. */
  | { kind: "misconfigured"; detail: string }
  | { kind: "lost"; reason: "died" | "broken"; detail: string }

export interface ExchangeOptions {
  origin: string
  ask: Ask
  headers: Readonly<Record<string, string>>
  dispatcher: Dispatcher
  promptTokens: number
  timeouts: Timeouts
}

/** All in ms. */
export interface Timeouts {
  connectMs: number
  /** From sending to the first byte: the queue and the prompt. */
  firstByteMs: number
  /** Between two chunks. */
  silenceMs: number
}

export interface ExchangeSink {
  step(step: ReadStep): void
  end(end: ExchangeEnd): void
}

/** A line longer than this is no chunk: a stream without ends of lines must not fill the memory. */
const MOST_EVENT_BYTES = 4_000_000
const MOST_ERROR_BYTES = 64_000
const LINE_FEED = 10

/** Begins at once; the answer gives it up without another word. */
export function exchange(options: ExchangeOptions, sink: ExchangeSink): () => void {
  const abort = new AbortController()
  let over = false
  const ended = (end: ExchangeEnd) => {
    over = true
    if (!abort.signal.aborted) sink.end(end)
  }
  void converse(options, sink, abort.signal).then(ended, (error: unknown) => ended(lost(error)))
  return () => {
    // An abort makes an exception with a stack trace: not for every answer that came to its end.
    if (!over) abort.abort()
  }
}

async function converse(
  options: ExchangeOptions,
  sink: ExchangeSink,
  signal: AbortSignal,
): Promise<ExchangeEnd> {
  const { origin, ask, headers, dispatcher, timeouts, promptTokens } = options
  const response = await request(origin + ask.path, {
    ...{ method: "POST", dispatcher, signal, body: JSON.stringify(ask.body) },
    headers: { "content-type": "application/json", accept: "text/event-stream", ...headers },
    ...{ headersTimeout: timeouts.firstByteMs, bodyTimeout: timeouts.silenceMs },
  })
  const { statusCode, body } = response
  if (statusCode !== 200) return refusal(statusCode, response.headers, await limited(body))
  const type = String(response.headers["content-type"] ?? "")
  if (!type.startsWith("text/event-stream"))
    throw new Malformed(`it answered ${type || "nothing"} instead of a stream: ${await limited(body)}`)
  const reader = new AnswerReader(promptTokens)
  await readEvents(body, (data) => {
    const step = reader.push(data)
    if (step !== null && !signal.aborted) sink.step(step)
  })
  if (reader.finish === null)
    return { kind: "lost", reason: "died", detail: "its stream ended before its answer" }
  return { kind: "finished", reason: reasonOf(reader), usage: reader.usage }
}

/** Each event's data, up to [DONE] or the stream's end. Rejects for what goes wrong on the way, and for what `onData`
 * throws. */
function readEvents(body: Readable, onData: (data: string) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let done = false
    const parser = createParser({
      onEvent({ data }) {
        if (data === "[DONE]") done = true
        else if (!done) onData(data)
      },
    })
    const decoder = new TextDecoder()
    let unfinished = 0
    body.on("data", (chunk: Buffer) => {
      // What comes after the end is let go by, so that the connection can be used again.
      if (done) return
      try {
        parser.feed(decoder.decode(chunk, { stream: true }))
        unfinished = chunk.includes(LINE_FEED) ? 0 : unfinished + chunk.length
        if (unfinished > MOST_EVENT_BYTES) throw new Malformed("a chunk has no end")
        if (done) resolve()
      } catch (error) {
        reject(error)
        body.destroy()
      }
    })
    body.on("end", resolve)
    body.on("error", reject)
    body.on("close", () => reject(new Error("it closed the connection")))
  })
}

function reasonOf({ finish, calledTools }: AnswerReader): "stop" | "length" | "tool_calls" {
  if (finish === "length") return "length"
  return finish === "tool_calls" || calledTools ? "tool_calls" : "stop"
}

async function limited(body: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of body) {
    parts.push(part)
    if ((bytes += part.length) > MOST_ERROR_BYTES) break
  }
  return Buffer.concat(parts).toString("utf8")
}

type Headers = Record<string, string | string[] | undefined>

function refusal(status: number, headers: Headers, text: string): ExchangeEnd {
  const detail = `${status}: ${errorMessage(text)}`
  if (status === 429 || status === 503 || status === 408)
    return { kind: "busy", detail, retryAfterMs: retryAfterMs(headers) }
  if (status === 401 || status === 403 || status === 404 || status === 405)
    return { kind: "misconfigured", detail }
  if (status >= 400 && status < 500) {
    const code = status === 413 ? "body_too_large" : "invalid_value"
    return { kind: "failed", error: new Wrong(errorMessage(text), { status, code }) }
  }
  return { kind: "lost", reason: "died", detail }
}

/** OpenAI's shape, vLLM's older one, FastAPI's, or plain text. */
function errorMessage(text: string): string {
  try {
    const json = JSON.parse(text) as Record<string, unknown>
    const error = json.error as Record<string, unknown> | string | undefined
    const said = typeof error === "object" ? error.message : (error ?? json.message ?? json.detail)
    if (said !== undefined) return (typeof said === "string" ? said : JSON.stringify(said)).slice(0, 1000)
  } catch {
    // Not JSON: said as it is.
  }
  return text.trim().slice(0, 300) || "no reason given"
}

/** Seconds, a date, or OpenAI's header in ms. */
export function retryAfterMs(headers: Headers, nowMs = Date.now()): number | null {
  const exact = Number(headers["retry-after-ms"])
  if (headers["retry-after-ms"] !== undefined && Number.isFinite(exact)) return Math.max(0, exact)
  const said = headers["retry-after"]
  if (typeof said !== "string") return null
  const seconds = Number(said)
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000)
  const atMs = Date.parse(said)
  return Number.isNaN(atMs) ? null : Math.max(0, atMs - nowMs)
}

function lost(error: unknown): ExchangeEnd {
  if (error instanceof Malformed) return { kind: "lost", reason: "broken", detail: error.message }
  return { kind: "lost", reason: "died", detail: networkText(error) }
}

const NETWORK: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ENOTFOUND: "there is no such host",
  EAI_AGAIN: "its name cannot be looked up just now",
  ECONNRESET: "it closed the connection",
  UND_ERR_SOCKET: "it closed the connection",
  UND_ERR_CONNECT_TIMEOUT: "it does not answer",
  UND_ERR_HEADERS_TIMEOUT: "it has not begun to answer in time",
  UND_ERR_BODY_TIMEOUT: "its stream stands still",
}

/** What went wrong on the way, in words. */
export function networkText(error: unknown): string {
  const { code, message, errors } = error as { code?: string; message?: string; errors?: unknown[] }
  if (errors?.length) return networkText(errors[0])
  return NETWORK[code ?? ""] ?? message ?? String(error)
}
