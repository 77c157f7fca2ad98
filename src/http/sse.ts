/** Server-sent events over a raw response. A slow reader gets fewer, longer chunks instead of a growing buffer;
 * a reader that stops reading is dropped. */
import type { ServerResponse } from "node:http"
import { type UserError, userError } from "../errors.ts"
import type { SessionDelta, SessionEnd, SessionSink } from "../serve/session.ts"
import { errorBody } from "./errors.ts"
import type { Format } from "./format.ts"

export interface SseOptions {
  /** Called once, before the first byte is written. */
  begin: () => void
  headers: Readonly<Record<string, string>>
  /** Bytes not yet taken by the socket above which deltas wait and are merged. */
  bufferLimit?: number
  /** A reader that takes nothing for this long is dropped. */
  stallMs?: number
  /** Silence before the first token after which the stream begins with a comment, so that proxies wait on. */
  heartbeatMs?: number
}

const BUFFER_LIMIT = 64 * 1024
const STALL_MS = 60_000
const HEARTBEAT_MS = 15_000

/** Sinks with something to write. Deltas come while the driver has a finished step in hand; the next step starts in
 * the event loop's next round, and only then is written, so that sockets never keep the engine waiting. */
const unwritten = new Set<SseSink>()

function flushLater(sink: SseSink): void {
  if (unwritten.size === 0) setImmediate(() => setImmediate(flushAll))
  unwritten.add(sink)
}

function flushAll(): void {
  const sinks = [...unwritten]
  unwritten.clear()
  for (const sink of sinks) sink.flush()
}

export class SseSink implements SessionSink {
  /** Resolves with the error when the request ended before the stream began, else null when it begins. */
  readonly begun: Promise<UserError | null>
  readonly #raw: ServerResponse
  readonly #format: Format
  readonly #options: SseOptions
  readonly #heartbeat: NodeJS.Timeout
  #settle!: (error: UserError | null) => void
  #open = false
  #ended = false
  /** Deltas merged while the socket is full. */
  #waiting: SessionDelta | null = null
  #end: SessionEnd | null = null
  #stall: NodeJS.Timeout | null = null

  constructor(raw: ServerResponse, format: Format, options: SseOptions) {
    this.#raw = raw
    this.#format = format
    this.#options = options
    this.begun = new Promise((resolve) => {
      this.#settle = resolve
    })
    this.#heartbeat = setInterval(() => this.#beat(), options.heartbeatMs ?? HEARTBEAT_MS)
    raw.on("error", () => raw.destroy())
    raw.once("close", () => this.#gone())
  }

  delta(delta: SessionDelta): void {
    if (this.#waiting === null) this.#waiting = delta
    else append(this.#waiting, delta)
    flushLater(this)
  }

  /** Writes what came in since the last time, if the reader takes it. */
  flush(): void {
    if (this.#ended || this.#stall !== null || this.#waiting === null) return
    const waiting = this.#waiting
    this.#waiting = null
    this.#begin()
    this.#write(this.#format.chunk(waiting))
  }

  end(end: SessionEnd): void {
    clearInterval(this.#heartbeat)
    if (!this.#open && end.kind !== "finished") {
      this.#ended = true
      this.#settle(end.kind === "failed" ? end.error : userError("shutting_down"))
      return
    }
    this.#begin()
    this.flush()
    this.#end = end
    if (this.#stall === null) this.#finish()
  }

  /** Nothing will be streamed: an error is answered instead. */
  discard(): void {
    this.#ended = true
    clearInterval(this.#heartbeat)
  }

  #begin(): void {
    if (this.#open) return
    this.#open = true
    this.#options.begin()
    this.#raw.writeHead(200, {
      ...this.#options.headers,
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    })
    this.#settle(null)
    const opening = this.#format.opening()
    if (opening !== null) this.#write(opening)
  }

  #write(event: object): void {
    if (this.#raw.destroyed) return
    this.#raw.write(`data: ${JSON.stringify(event)}\n\n`)
    if (this.#raw.writableLength > (this.#options.bufferLimit ?? BUFFER_LIMIT)) this.#wait()
  }

  #wait(): void {
    if (this.#stall !== null) return
    this.#stall = setTimeout(() => this.#raw.destroy(), this.#options.stallMs ?? STALL_MS)
    this.#raw.once("drain", () => {
      if (this.#stall !== null) clearTimeout(this.#stall)
      this.#stall = null
      this.flush()
      if (this.#end !== null && this.#stall === null) this.#finish()
    })
  }

  #finish(): void {
    const end = this.#end
    if (this.#ended || end === null || this.#raw.destroyed) return
    this.#ended = true
    if (end.kind === "finished") {
      for (const chunk of this.#format.closing(end)) this.#raw.write(`data: ${JSON.stringify(chunk)}\n\n`)
    } else {
      const error = end.kind === "failed" ? end.error : userError("shutting_down")
      this.#raw.write(`data: ${JSON.stringify(errorBody(error))}\n\n`)
    }
    this.#raw.end("data: [DONE]\n\n")
  }

  #beat(): void {
    this.#begin()
    if (this.#stall === null && !this.#raw.destroyed) this.#raw.write(": waiting\n\n")
  }

  #gone(): void {
    clearInterval(this.#heartbeat)
    if (this.#stall !== null) clearTimeout(this.#stall)
    this.#settle(null)
  }
}

/** Appends a delta to another. */
export function append(to: SessionDelta, delta: SessionDelta): void {
  to.content += delta.content
  to.reasoning += delta.reasoning
  to.toolCalls.push(...delta.toolCalls)
  to.logprobs.push(...delta.logprobs)
  to.promptTokens = delta.promptTokens
  to.completionTokens = delta.completionTokens
}
