/** Server-sent events over a raw response, one stream for all choices of a request. A slow reader gets fewer, longer
 * chunks instead of a growing buffer; a reader that stops reading is dropped. */
import type { ServerResponse } from "node:http"
import { type UserError, userError } from "../errors.ts"
import { type AnswerDelta, type AnswerEnd, type AnswerSink, isCount } from "../text/answer.ts"
import { addCall } from "../text/text-stream.ts"
import { Delivery } from "./delivery.ts"
import type { Finished, Format } from "./format.ts"
import { askBefore } from "./presence.ts"

export interface SseOptions {
  /** Called once, before the first byte is written. */
  begin: () => void
  headers: Readonly<Record<string, string>>
  /** Of the request, on performance.now()'s clock. Default: now. */
  arrivalMs?: number
  /** Default 1. */
  choices?: number
  /** A choice came to nothing: the others are not wanted any more. */
  failed?: () => void
  /** Bytes not yet taken by the socket above which deltas wait and are merged. */
  bufferLimit?: number
  /** A reader that takes nothing for this long is dropped. */
  stallMs?: number
  /** An engine computes in this process, and must not wait for sockets. Default: it does. */
  engineHere?: boolean
  /** Silence before the first token after which the stream begins with a comment, so that proxies wait on. */
  heartbeatMs?: number
}

const BUFFER_LIMIT = 64 * 1024
const STALL_MS = 60_000
const HEARTBEAT_MS = 15_000
/** Streams are written in slices this long, so that other events get their turn in between. */
const SLICE_MS = 2

/** Streams with something to write. */
const unwritten = new Set<SseStream>()

/** Where an engine computes in this process, deltas come while its driver has a finished step in hand; the next step starts
 * in the event loop's next round, and only then is written, so that sockets never keep the engine waiting. Elsewhere they
 * are written as soon as all that came with them has been read. */
function flushLater(stream: SseStream, engineHere: boolean): void {
  if (unwritten.size === 0) {
    if (engineHere) setImmediate(() => setImmediate(flushSome))
    else queueMicrotask(() => process.nextTick(flushSome))
  }
  unwritten.add(stream)
}

function flushSome(): void {
  const until = performance.now() + SLICE_MS
  for (const stream of unwritten) {
    unwritten.delete(stream)
    stream.flush()
    if (performance.now() < until) continue
    if (unwritten.size > 0) setImmediate(flushSome)
    return
  }
}

interface Choice {
  readonly delivery: Delivery
  opened: boolean
  /** Deltas merged until they are written. */
  waiting: AnswerDelta | null
  end: Finished | null
  closed: boolean
}

export class SseStream {
  /** Resolves with the error when a choice failed before the stream began, else null when it begins. */
  readonly begun: Promise<UserError | null>
  /** Where the sessions of the choices put their results. */
  readonly sinks: readonly AnswerSink[]
  readonly #raw: ServerResponse
  readonly #format: Format
  readonly #options: SseOptions
  readonly #engineHere: boolean
  readonly #heartbeat: NodeJS.Timeout
  readonly #choices: Choice[]
  #settle!: (error: UserError | null) => void
  #open = false
  /** Its body is sent in chunks, which are put together here. */
  #chunked = false
  #ended = false
  #failure: UserError | null = null
  #stall: NodeJS.Timeout | null = null

  constructor(raw: ServerResponse, format: Format, options: SseOptions) {
    this.#raw = raw
    this.#format = format
    this.#options = options
    this.#engineHere = options.engineHere ?? true
    this.#choices = Array.from({ length: options.choices ?? 1 }, () => ({
      ...{ opened: false, waiting: null, end: null, closed: false },
      delivery: new Delivery(options.arrivalMs ?? performance.now()),
    }))
    this.sinks = this.#choices.map((choice) => ({
      delta: (delta) => this.#delta(choice, delta),
      end: (end) => this.#end(choice, end),
    }))
    this.begun = new Promise((resolve) => {
      this.#settle = resolve
    })
    this.#heartbeat = setInterval(() => this.#beat(), options.heartbeatMs ?? HEARTBEAT_MS)
    raw.on("error", () => raw.destroy())
    raw.once("close", () => this.#gone())
  }

  /** Writes what came in since the last time, if the reader takes it. */
  flush(): void {
    if (this.#ended || this.#stall !== null) return
    let text = ""
    for (const [index, choice] of this.#choices.entries()) text += this.#take(choice, index)
    const over = this.#failure !== null || this.#choices.every((choice) => choice.closed)
    if (over) text += this.#last()
    if (text === "") return
    this.#begin()
    this.#ended = over
    if (this.#raw.destroyed) return
    if (over) this.#raw.end(this.#chunked ? `${chunkOf(text)}${LAST_CHUNK}` : text)
    else {
      this.#write(text)
      if (this.#raw.writableLength > (this.#options.bufferLimit ?? BUFFER_LIMIT)) this.#wait()
    }
  }

  /** Find out whether the reader is still there, by something that it overlooks. */
  ask(): void {
    if (!this.#open) askBefore(this.#raw)
    else if (!this.#ended) this.#comment()
  }

  /** Nothing will be streamed: an error is answered instead. */
  discard(): void {
    this.#ended = true
    clearInterval(this.#heartbeat)
  }

  #delta(choice: Choice, delta: AnswerDelta): void {
    if (!isCount(delta)) choice.delivery.note()
    else if (!this.#format.tellsCounts) return
    if (choice.waiting === null) choice.waiting = delta
    else append(choice.waiting, delta)
    flushLater(this, this.#engineHere)
  }

  #end(choice: Choice, end: AnswerEnd): void {
    if (this.#ended) return
    if (end.kind === "finished") choice.end = { ...end, delivered: choice.delivery }
    else {
      const error = end.kind === "failed" ? end.error : userError("shutting_down")
      this.#options.failed?.()
      if (!this.#open) {
        this.discard()
        this.#settle(error)
        return
      }
      this.#failure ??= error
    }
    flushLater(this, this.#engineHere)
  }

  /** The events that a choice has for its reader. */
  #take(choice: Choice, index: number): string {
    const { waiting, end } = choice
    if (choice.closed || (waiting === null && end === null)) return ""
    let text = ""
    if (!choice.opened) {
      choice.opened = true
      text += this.#format.opening(index)
    }
    // The end tells the count as well.
    if (waiting !== null && (end === null || !isCount(waiting))) text += this.#format.chunk(waiting, index)
    choice.waiting = null
    if (end !== null) text += this.#format.closing(end, index)
    choice.closed = end !== null
    return text
  }

  #last(): string {
    clearInterval(this.#heartbeat)
    if (this.#failure !== null) return this.#format.failure(this.#failure)
    return this.#format.last(this.#choices.map((choice) => choice.end!))
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
    // Node would hand each chunk to the socket in four pieces, which costs more than all else that is done for a token.
    this.#chunked = this.#raw.chunkedEncoding
    this.#raw.chunkedEncoding = false
    this.#settle(null)
  }

  #wait(): void {
    if (this.#stall !== null) return
    this.#stall = setTimeout(() => this.#raw.destroy(), this.#options.stallMs ?? STALL_MS)
    this.#raw.once("drain", () => {
      if (this.#stall !== null) clearTimeout(this.#stall)
      this.#stall = null
      this.flush()
    })
  }

  #beat(): void {
    if (this.#ended) return
    this.#begin()
    this.#comment()
  }

  #comment(): void {
    if (this.#stall === null && !this.#raw.destroyed)
      this.#write(this.#format.heartbeat?.() ?? ": waiting\n\n")
  }

  #write(text: string): void {
    this.#raw.write(this.#chunked ? chunkOf(text) : text)
  }

  #gone(): void {
    clearInterval(this.#heartbeat)
    if (this.#stall !== null) clearTimeout(this.#stall)
    this.#settle(null)
  }
}

const LAST_CHUNK = "0\r\n\r\n"

/** As HTTP/1.1 sends a part of a body whose length is not known. */
function chunkOf(text: string): string {
  return `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`
}

/** Appends a delta to another. */
export function append(to: AnswerDelta, delta: AnswerDelta): void {
  to.content += delta.content
  to.reasoning += delta.reasoning
  for (const call of delta.toolCalls) addCall(to.toolCalls, call)
  to.logprobs.push(...delta.logprobs)
  if (delta.prompt !== undefined) to.prompt = delta.prompt
  if (delta.embedding !== undefined) to.embedding = delta.embedding
  to.promptTokens = delta.promptTokens
  to.completionTokens = delta.completionTokens
}
