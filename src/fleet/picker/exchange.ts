/** One HTTP request as Envoy tells it on a gRPC stream: its messages in, answers to them out, in every body mode. Every
 * message is answered, refused at once, or held by flow control: none is left without. */
import type { SloClasses } from "../../config/slo-classes.ts"
import { UserError, userError } from "../../errors.ts"
import { AnswerReader } from "./answer-reader.ts"
import { type Ask, generates, type Headers, readAsk } from "./ask.ts"
import type { Sent } from "./chooser.ts"
import { droppedError, outOfOrder } from "./errors.ts"
import { ELSEWHERE_MS, type FlowControl, type Held, hasTurn, type Verdict } from "./flow-control.ts"
import * as say from "./messages.ts"
import type { PickerMetrics } from "./metrics.ts"
import { type RewriteOptions, rewrittenBody, rewrittenHeaders } from "./rewrite.ts"
import { headersOf, servedBy, subsetOf } from "./told.ts"
import {
  BODY_MODE,
  type HttpBody,
  type ProcessingRequest,
  type ProcessingResponse,
  type Struct,
} from "./wire.ts"

export interface ExchangeParts {
  flow: FlowControl
  classes: SloClasses
  metrics: PickerMetrics
  rewrite: RewriteOptions
  /** Largest body of a request, bytes. */
  bodyLimit: number
  /** Endpoints named for a request, the picked one included. */
  named: number
  nowUs: () => number
  epochMs: () => number
}

/** Envoy waits so long for an answer about a held request, where it lets a picker say so. */
const HOLD_TIMEOUT_S = 3600

const EMPTY = Buffer.alloc(0)
const DROPPED = { kind: "drop", retryMs: ELSEWHERE_MS, heldUs: 0 } as const
const NO_ENDPOINT = { ...DROPPED, reason: "rejected-no-endpoints" } as const
const GRPC_MODE =
  "The endpoint picker reads no bodies in the mode GRPC; set request_body_mode to FULL_DUPLEX_STREAMED."

/** Statuses of an endpoint that cannot be reached, or is overloaded: what a request itself broke is 500. */
const UNAVAILABLE: readonly string[] = ["502", "503", "504"]

type Send = Extract<Verdict, { kind: "send" }>

/** Modes in which the endpoint is picked by the headers alone: Envoy waits for the answer to them before it sends the
 * body, or sends none or not all of it. */
const BY_HEADERS: readonly number[] = [BODY_MODE.none, BODY_MODE.streamed, BODY_MODE.bufferedPartial]

/** `headers`, then `body` until all of it is here, then `held`, then `sent`; `over` from a refusal on. */
type Phase = "headers" | "body" | "held" | "sent" | "over"

export class Exchange {
  readonly #parts: ExchangeParts
  readonly #write: (message: ProcessingResponse) => void
  /** Closes the stream from this side: Envoy then goes on without the picker. */
  readonly #leave: () => void
  #phase: Phase = "headers"
  #mode: number = BODY_MODE.fullDuplex
  #responseMode: number = BODY_MODE.fullDuplex
  #headers: Headers = {}
  #subset: readonly string[] | null = null
  /** Of a body that is still on its way. */
  #pieces: Buffer[] = []
  #size = 0
  /** The whole body, while it is held. */
  #body: Buffer | null = null
  /** Trailers came after the body: they are answered after it. */
  #trailers = false
  /** Pieces of a body that came before the answer to its headers, each of which wants an answer of its own. */
  #owed = 0
  #arrivalUs = 0
  #ask: Ask | null = null
  #held: Held | null = null
  #sent: Sent | null = null
  #answer: AnswerReader | null = null
  #answering = false
  #failed = false

  constructor(parts: ExchangeParts, write: (message: ProcessingResponse) => void, leave: () => void) {
    this.#parts = parts
    this.#write = write
    this.#leave = leave
  }

  /** Its answer is on its way and Envoy waits for nothing: the stream may be closed from this side. In full duplex it may
   * not: Envoy then loses the rest of the answer. */
  get mayLeave(): boolean {
    return this.#answering && this.#responseMode !== BODY_MODE.fullDuplex
  }

  receive(message: ProcessingRequest): void {
    // Envoy only tells, and ignores what is said.
    if (message.observabilityMode === true || this.#phase === "over") return
    try {
      this.#take(message)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      this.#refuse(error, null, null)
    }
  }

  /** The stream is over, in order or not. */
  closed(): void {
    if (this.#phase !== "sent" && this.#phase !== "over") this.#abandon()
    this.#end(this.#failed ? "failed" : this.#answering ? "done" : "cancelled")
    this.#phase = "over"
  }

  /** No endpoint is wanted any more. */
  #abandon(): void {
    this.#held?.cancel()
    this.#held = null
    this.#letGo()
    this.#body = null
    this.#parts.metrics.gone()
  }

  #take(message: ProcessingRequest): void {
    if (message.requestHeaders !== undefined) this.#onRequestHeaders(message)
    else if (message.requestBody !== undefined) this.#onRequestBody(message.requestBody)
    else if (message.requestTrailers !== undefined) this.#onRequestTrailers()
    else if (message.responseHeaders !== undefined) this.#onResponseHeaders(message)
    else if (message.responseBody !== undefined) this.#onResponseBody(message.responseBody)
    else if (message.responseTrailers !== undefined) this.#onResponseTrailers()
    else
      throw new UserError("The data plane sent a message that this endpoint picker does not know.", {
        status: 500,
      })
  }

  #onRequestHeaders(message: ProcessingRequest): void {
    if (this.#phase !== "headers") throw outOfOrder("request headers")
    this.#arrivalUs = this.#parts.nowUs()
    const headers = message.requestHeaders!
    const modes = message.protocolConfig
    // Without a word of the mode it is the one that the endpoint picker protocol asks for.
    this.#mode = modes === undefined ? BODY_MODE.fullDuplex : (modes.requestBodyMode ?? BODY_MODE.none)
    this.#responseMode =
      modes === undefined ? BODY_MODE.fullDuplex : (modes.responseBodyMode ?? BODY_MODE.none)
    if (this.#mode === BODY_MODE.grpc) throw new UserError(GRPC_MODE, { status: 500 })
    this.#headers = headersOf(headers)
    this.#subset = subsetOf(message)
    this.#phase = "body"
    if (!generates(this.#headers)) return void this.#pass()
    if (headers.endOfStream === true) throw userError("invalid_json", { detail: "there is no body" })
    if (BY_HEADERS.includes(this.#mode)) return void this.#place(null)
    // In the buffered mode Envoy sends the body only after this answer; where to is said with the body's.
    if (this.#mode !== BODY_MODE.fullDuplex) this.#write(say.CONTINUE_REQUEST_HEADERS)
  }

  /** A request that asks for no tokens goes on at once, and its body as it comes. */
  #pass(): void {
    const endpoint = this.#parts.flow.any(this.#subset)
    if (endpoint === null) return void this.#settled(NO_ENDPOINT)
    this.#phase = "sent"
    this.#sendHeaders({ [say.DESTINATION]: endpoint }, say.destinationMetadata(endpoint))
  }

  #onRequestBody(piece: HttpBody): void {
    if (this.#phase === "sent") return void this.#passBody(piece)
    if (BY_HEADERS.includes(this.#mode)) return void this.#owed++
    if (this.#phase !== "body") throw outOfOrder("a piece of the request's body")
    const { body, endOfStream } = piece
    const bytes = body?.length ?? 0
    if (!this.#parts.flow.coming(bytes)) return void this.#settled(this.#parts.flow.refused(0))
    this.#size += bytes
    if (this.#size > this.#parts.bodyLimit)
      throw userError("body_too_large", { limit: this.#parts.bodyLimit })
    this.#pieces.push(body ?? EMPTY)
    // A buffered body comes in one message, whose end is not said where trailers follow.
    if (endOfStream === true || this.#mode !== BODY_MODE.fullDuplex) this.#bodyComplete()
  }

  #passBody({ body = EMPTY, endOfStream = false }: HttpBody): void {
    if (this.#mode !== BODY_MODE.fullDuplex) return void this.#write(say.CONTINUE_REQUEST_BODY)
    for (const response of say.bodyPieces(body, endOfStream)) this.#write({ requestBody: { response } })
  }

  #onRequestTrailers(): void {
    if (this.#phase !== "body" || this.#mode !== BODY_MODE.fullDuplex)
      return void this.#write(say.CONTINUE_REQUEST_TRAILERS)
    this.#trailers = true
    this.#bodyComplete()
  }

  #bodyComplete(): void {
    this.#place(this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces))
  }

  #place(body: Buffer | null): void {
    const { classes, flow } = this.#parts
    this.#body = body
    this.#letGo()
    const seen = { arrivalUs: this.#arrivalUs, followed: this.#responseMode !== BODY_MODE.none }
    this.#ask = readAsk(this.#headers, body, classes, seen)
    this.#phase = "held"
    this.#held = flow.place(this.#ask, this.#subset, (verdict) => this.#settled(verdict))
    if (this.#held !== null && this.#mode !== BODY_MODE.fullDuplex)
      this.#write({ overrideMessageTimeout: { seconds: HOLD_TIMEOUT_S } })
  }

  /** Its pieces are no longer on their way. */
  #letGo(): void {
    if (this.#pieces.length > 0) this.#parts.flow.coming(-this.#size)
    this.#pieces = []
  }

  #settled(verdict: Verdict): void {
    this.#held = null
    this.#parts.metrics.settled(verdict)
    if (verdict.kind === "send") return void this.#send(verdict)
    const { reason, retryMs } = verdict
    // Those that are told the same time are not to come back together.
    const jitter = hasTurn(reason) ? 1 : 1 + Math.random() / 2
    this.#refuse(droppedError(reason), reason, retryMs * jitter)
  }

  #send(verdict: Send): void {
    const { endpoints, sent, heldUs } = verdict
    this.#sent = sent
    this.#phase = "sent"
    const destination = endpoints.slice(0, this.#parts.named).join(",")
    const headers = { [say.DESTINATION]: destination, ...rewrittenHeaders(this.#ask!, heldUs) }
    const dynamicMetadata = say.destinationMetadata(destination)
    const body = this.#body === null ? null : this.#newBody(this.#body, verdict)
    // An answer may take long: its request is not kept.
    this.#body = this.#ask = null
    if (body === null) this.#sendHeaders(headers, dynamicMetadata)
    else if (this.#mode === BODY_MODE.fullDuplex) this.#sendPieces(body, headers, dynamicMetadata)
    else this.#sendBuffered(body, headers, dynamicMetadata)
  }

  #newBody(body: Buffer, { dueInUs, heldUs }: Send): Buffer {
    const { rewrite, epochMs } = this.#parts
    return rewrittenBody(body, this.#ask!, { dueInUs, heldUs, epochMs: epochMs() }, rewrite)
  }

  #sendHeaders(headers: Headers, dynamicMetadata: Struct): void {
    const response = { headerMutation: say.setHeaders(headers), clearRouteCache: true }
    this.#write({ requestHeaders: { response }, dynamicMetadata })
    for (; this.#owed > 0; this.#owed--) this.#write(say.CONTINUE_REQUEST_BODY)
  }

  #sendPieces(body: Buffer, headers: Headers, dynamicMetadata: Struct): void {
    this.#sendHeaders({ ...headers, "content-length": String(body.length) }, dynamicMetadata)
    for (const piece of say.bodyPieces(body, !this.#trailers))
      this.#write({ requestBody: { response: piece } })
    if (this.#trailers) this.#write(say.CONTINUE_REQUEST_TRAILERS)
  }

  /** Its headers were let through before; what is said of them now counts all the same. */
  #sendBuffered(body: Buffer, headers: Headers, dynamicMetadata: Struct): void {
    const headerMutation = say.setHeaders({ ...headers, "content-length": String(body.length) })
    const response = { headerMutation, bodyMutation: { body }, clearRouteCache: true }
    this.#write({ requestBody: { response }, dynamicMetadata })
  }

  #onResponseHeaders(message: ProcessingRequest): void {
    const headers = headersOf(message.responseHeaders!)
    const { metrics, nowUs } = this.#parts
    // Without an endpoint Envoy answers by itself: the request timed out while it was held, or a filter refused it.
    if (this.#phase !== "sent") this.#abandon()
    this.#phase = "sent"
    this.#answering = true
    metrics.answered(headers[":status"] ?? "")
    if (this.#sent !== null) {
      const endpoint = servedBy(message)
      if (endpoint !== null) this.#sent.servedBy(endpoint)
      this.#failed = UNAVAILABLE.includes(headers[":status"] ?? "")
      this.#answer = new AnswerReader(this.#sent, headers["content-type"] ?? "")
    }
    this.#write(say.CONTINUE_RESPONSE_HEADERS)
    if (message.responseHeaders!.endOfStream === true) this.#end(this.#failed ? "failed" : "done", nowUs())
  }

  #onResponseBody({ body = EMPTY, endOfStream = false }: HttpBody): void {
    const nowUs = this.#parts.nowUs()
    // Passed on first: no client waits for what is read of it.
    if (this.#responseMode === BODY_MODE.fullDuplex)
      this.#write({
        responseBody: { response: { bodyMutation: { streamedResponse: { body, endOfStream } } } },
      })
    else this.#write(say.CONTINUE_RESPONSE_BODY)
    this.#answer?.read(body, nowUs)
    if (endOfStream) this.#end(this.#failed ? "failed" : "done", nowUs)
  }

  #onResponseTrailers(): void {
    this.#write(say.CONTINUE_RESPONSE_TRAILERS)
    this.#end(this.#failed ? "failed" : "done")
  }

  #end(how: "done" | "cancelled" | "failed", nowUs: number = this.#parts.nowUs()): void {
    if (this.#sent === null) return
    this.#answer?.end(nowUs)
    this.#sent.ended(how, nowUs)
    this.#sent = null
  }

  #refuse(error: UserError, reason: say.DropReason | null, retryMs: number | null): void {
    this.#held?.cancel()
    this.#held = null
    this.#letGo()
    this.#body = null
    this.#end("failed")
    this.#phase = "over"
    if (reason === null) this.#parts.metrics.refused(error.status)
    this.#write(say.refusal(error, reason, retryMs))
    this.#leave()
  }
}
