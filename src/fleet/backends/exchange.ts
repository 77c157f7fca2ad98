/** One request to an engine and its streamed answer. Ends exactly once, whatever the network or the engine does. */
import { StringDecoder } from "node:string_decoder"
import { createParser, type EventSourceParser } from "eventsource-parser"
import type { Dispatcher } from "undici"
import { type UserError, UserError as Wrong } from "../../errors.ts"
import { AnswerReader, Malformed, type ReadStep, type ReadUsage } from "./answer-reader.ts"
import type { Ask } from "./ask.ts"

export type ExchangeEnd =
  | { kind: "finished"; reason: "stop" | "length" | "tool_calls"; stop: string | undefined; usage: ReadUsage }
  /** The request is at fault: its client is told. */
  | { kind: "failed"; error: UserError }
  /** The engine takes nothing just now; `retryAfterMs`: it said for how long. */
  | { kind: "busy"; detail: string; retryAfterMs: number | null }
  /** The gateway is at fault: a wrong key or model name in its configuration. */
  | { kind: "misconfigured"; detail: string }
  | { kind: "lost"; reason: "died" | "broken"; detail: string }

export interface ExchangeOptions {
  origin: string
  /** Before the paths of its API; empty, or with no slash at its end. */
  basePath: string
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
  const conversation = new Conversation(options, sink)
  conversation.begin()
  return () => conversation.giveUp()
}

/** The HTTP client tells it what comes, piece by piece: streams and promises of every answer would cost more than what is
 * done with it. */
class Conversation implements Dispatcher.DispatchHandler {
  readonly #options: ExchangeOptions
  readonly #sink: ExchangeSink
  readonly #reader: AnswerReader
  readonly #decoder = new StringDecoder("utf8")
  readonly #parser: EventSourceParser
  #controller: Dispatcher.DispatchController | null = null
  #over = false
  #givenUp = false
  /** Bytes of a line that has no end yet. */
  #unfinished = 0
  /** What is no stream: gathered, to be told. */
  #other: Other | null = null

  constructor(options: ExchangeOptions, sink: ExchangeSink) {
    this.#options = options
    this.#sink = sink
    this.#reader = new AnswerReader(options.promptTokens)
    this.#parser = createParser({ onEvent: ({ data }) => this.#event(data) })
  }

  begin(): void {
    const { origin, basePath, ask, headers, dispatcher, timeouts } = this.#options
    dispatcher.dispatch(
      {
        ...{ origin, path: basePath + ask.path, method: "POST", body: JSON.stringify(ask.body) },
        headers: { "content-type": "application/json", accept: "text/event-stream", ...headers },
        ...{ headersTimeout: timeouts.firstByteMs, bodyTimeout: timeouts.silenceMs },
      },
      this,
    )
  }

  giveUp(): void {
    this.#givenUp = true
    if (this.#over) return
    this.#over = true
    this.#hangUp()
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    // It was given up before there was a connection.
    if (this.#over) this.#hangUp()
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: Headers): void {
    if (status < 200) return
    const type = String(headers["content-type"] ?? "")
    if (status !== 200 || !type.startsWith("text/event-stream"))
      this.#other = { status, headers, type, parts: [], bytes: 0 }
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    // What comes after the end is let go by, so that the connection can be used again.
    if (this.#over) return
    if (this.#other !== null) {
      this.#gather(this.#other, chunk)
      return
    }
    try {
      this.#parser.feed(this.#decoder.write(chunk))
      this.#unfinished = chunk.includes(LINE_FEED) ? 0 : this.#unfinished + chunk.length
      if (this.#unfinished > MOST_EVENT_BYTES) throw new Malformed("a chunk has no end")
    } catch (error) {
      this.#fail(lost(error))
    }
  }

  onResponseEnd(): void {
    if (this.#other === null) this.#finish()
    else this.#told(this.#other)
  }

  onResponseError(_: unknown, error: Error): void {
    this.#end(lost(error))
  }

  /** The data of an event. */
  #event(data: string): void {
    if (this.#over) return
    if (data === "[DONE]") {
      this.#finish()
      return
    }
    const step = this.#reader.push(data)
    if (step !== null) this.#sink.step(step)
  }

  #finish(): void {
    const reader = this.#reader
    if (reader.finish === null)
      this.#end({ kind: "lost", reason: "died", detail: "its stream ended before its answer" })
    else this.#end({ kind: "finished", reason: reasonOf(reader), stop: reader.stop, usage: reader.usage })
  }

  #gather(other: Other, chunk: Buffer): void {
    other.parts.push(chunk)
    other.bytes += chunk.length
    if (other.bytes <= MOST_ERROR_BYTES) return
    this.#told(other)
    this.#hangUp()
  }

  #told({ status, headers, type, parts }: Other): void {
    const text = Buffer.concat(parts).toString("utf8")
    if (status !== 200) this.#end(refusal(status, headers, text))
    else this.#end(lost(new Malformed(`it answered ${type || "nothing"} instead of a stream: ${text}`)))
  }

  #fail(end: ExchangeEnd): void {
    this.#end(end)
    this.#hangUp()
  }

  /** Told once the HTTP client has done with what came: its connection can then be used for what is held, and an error of a
   * request that never left is not told before the request is begun. */
  #end(end: ExchangeEnd): void {
    if (this.#over) return
    this.#over = true
    queueMicrotask(() => {
      if (!this.#givenUp) this.#sink.end(end)
    })
  }

  #hangUp(): void {
    this.#controller?.abort(GIVEN_UP)
  }
}

/** A response that is no stream of events. */
interface Other {
  status: number
  headers: Headers
  type: string
  parts: Buffer[]
  bytes: number
}

/** Made once: an error of its own for each has a stack trace. */
const GIVEN_UP = new Error("it was given up")

function reasonOf({ finish, calledTools }: AnswerReader): "stop" | "length" | "tool_calls" {
  if (finish === "length") return "length"
  return finish === "tool_calls" || calledTools ? "tool_calls" : "stop"
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
