/** Runs the generations of one request and answers them, whole or as a stream. The client's going away cancels them. */
import type { FastifyReply, FastifyRequest } from "fastify"
import { userError } from "../errors.ts"
import type { Generation } from "../replica/generation.ts"
import type { Exchanged } from "../serve/explainer.ts"
import type { Service } from "../serve/service.ts"
import { type AnswerDelta, type AnswerEnd, type AnswerSink, isCount } from "../text/answer.ts"
import { exactBody } from "./body.ts"
import type { Exact } from "./chat-generation.ts"
import { Delivery } from "./delivery.ts"
import type { Finished, Format } from "./format.ts"
import { askBefore, watchClient } from "./presence.ts"
import { withinRates } from "./rates.ts"
import { append, SseStream } from "./sse.ts"

export interface Exchange {
  service: Service
  request: FastifyRequest
  reply: FastifyReply
  /** Its body in OpenAI's form, for replicas that are other servers; left out: as it was sent. */
  body?: Exact
  /** One per prompt. */
  generations: readonly Generation[]
  /** Answers to each prompt. */
  perPrompt: number
  format: Format
  stream: boolean
}

/** What was started for an answer that failed is not wanted any more. */
const UNWANTED = "unwanted"

export async function respond(exchange: Exchange): Promise<unknown> {
  const { reply, format } = exchange
  const abort = new AbortController()
  if (exchange.stream) return stream(exchange, abort)
  watchClient(reply.raw, abort, () => askBefore(reply.raw))
  const sinks = Array.from(
    { length: choices(exchange) },
    () => new CollectingSink(exchange.request.arrivalMs),
  )
  try {
    await start(exchange, abort, sinks)
    const ends = await Promise.all(sinks.map((sink) => sink.finished()))
    return format.whole(
      sinks.map((sink) => sink.all),
      ends,
    )
  } catch (error) {
    abort.abort(UNWANTED)
    throw error
  }
}

async function stream(exchange: Exchange, abort: AbortController): Promise<FastifyReply> {
  const { request, reply, format } = exchange
  const sse = new SseStream(reply.raw, format, {
    begin: () => reply.hijack(),
    headers: Object.assign(request.rateHeaders, headersOf(reply)),
    arrivalMs: request.arrivalMs,
    choices: choices(exchange),
    engineHere: exchange.service.front.engineHere,
    failed: () => abort.abort(UNWANTED),
  })
  watchClient(reply.raw, abort, () => sse.ask())
  try {
    await start(exchange, abort, sse.sinks)
  } catch (error) {
    sse.discard()
    abort.abort(UNWANTED)
    throw error
  }
  const refused = await sse.begun
  if (refused !== null) throw refused
  return reply
}

/** What hooks have set: a stream is written past Fastify. */
function headersOf(reply: FastifyReply): Record<string, string> {
  return Object.fromEntries(Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]))
}

function choices({ generations, perPrompt }: Exchange): number {
  return generations.length * perPrompt
}

/** Starts every generation; the choices of the first prompt come first. */
function start(
  { service, request, reply, generations, body: given = request.body as Exact }: Exchange,
  { signal }: AbortController,
  sinks: readonly AnswerSink[],
): Promise<void> {
  const { arrivalMs } = request
  const { seed } = exactBody(request.body)
  const body = { ...given, ...(seed !== undefined && { seed }) }
  const trace = traceOf(request)
  const of = { arrivalMs, signal, body, ...(trace !== null && { trace }) }
  const requests = generations.map((generation) => ({ ...generation, ...of }))
  const exchanged = exchangedBy(service, request, body)
  return withinRates({ service, request, reply }, requests, sinks, (counted) =>
    service.recorder.start(requests, counted, (recorded) =>
      service.explainer.start(exchanged, requests, recorded, (explained) =>
        service.asked.start(requests, explained, (watched) => service.front.start(requests, watched)),
      ),
    ),
  )
}

const TRACE_HEADERS = ["traceparent", "tracestate"] as const
/** By W3C's form: a malformed one begins no trace, here or elsewhere. */
const TRACEPARENT = /^[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}(-|$)/

function traceOf({ headers }: FastifyRequest): Record<string, string> | null {
  if (typeof headers.traceparent !== "string" || !TRACEPARENT.test(headers.traceparent)) return null
  const named = TRACE_HEADERS.flatMap((name): [string, string][] => {
    const value = headers[name]
    return typeof value === "string" ? [[name, value]] : []
  })
  return Object.fromEntries(named)
}

/** What its log line and spans say of it. */
function exchangedBy(
  { front }: Service,
  { id, log, headers }: FastifyRequest,
  { model, messages, input }: Exact,
): Exchanged {
  return {
    ...{ id, log: log.info.bind(log), headers },
    operation: messages !== undefined ? "chat" : input !== undefined ? "embeddings" : "text_completion",
    model: typeof model === "string" ? model : front.model.name,
  }
}

class CollectingSink implements AnswerSink {
  readonly all: AnswerDelta = {
    content: "",
    reasoning: "",
    toolCalls: [],
    logprobs: [],
    promptTokens: 0,
    completionTokens: 0,
  }
  readonly #delivery: Delivery
  readonly #ended: Promise<AnswerEnd>
  #resolve!: (end: AnswerEnd) => void

  constructor(arrivalMs: number) {
    this.#delivery = new Delivery(arrivalMs)
    this.#ended = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  delta(delta: AnswerDelta): void {
    if (!isCount(delta)) this.#delivery.note()
    append(this.all, delta)
  }

  end(end: AnswerEnd): void {
    this.#resolve(end)
  }

  async finished(): Promise<Finished> {
    const end = await this.#ended
    if (end.kind === "failed") throw end.error
    if (end.kind === "cancelled") throw userError("shutting_down")
    return { ...end, delivered: this.#delivery }
  }
}
