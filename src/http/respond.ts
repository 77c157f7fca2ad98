/** Runs one generation and answers it, whole or as a stream. The client's going away cancels it. */
import type { FastifyReply, FastifyRequest } from "fastify"
import { userError } from "../errors.ts"
import type { GenerationRequest } from "../serve/gateway.ts"
import type { Service } from "../serve/service.ts"
import type { SessionDelta, SessionEnd, SessionSink } from "../serve/session.ts"
import type { Format } from "./format.ts"
import { append, SseSink } from "./sse.ts"

export interface Exchange {
  service: Service
  request: FastifyRequest
  reply: FastifyReply
  generation: Omit<GenerationRequest, "signal" | "arrivalMs">
  format: Format
  stream: boolean
}

export async function respond(exchange: Exchange): Promise<unknown> {
  const { service, request, reply, format } = exchange
  const abort = new AbortController()
  // "close" also comes after a complete response; cancelling what has ended does nothing.
  reply.raw.once("close", () => abort.abort())
  const generation = { ...exchange.generation, arrivalMs: request.arrivalMs, signal: abort.signal }
  if (exchange.stream) {
    const sink = new SseSink(reply.raw, format, {
      begin: () => reply.hijack(),
      headers: { "x-request-id": request.id },
    })
    try {
      await service.gateway.start(generation, sink)
    } catch (error) {
      sink.discard()
      throw error
    }
    const refused = await sink.begun
    if (refused !== null) throw refused
    return reply
  }
  const sink = new CollectingSink()
  await service.gateway.start(generation, sink)
  const end = await sink.ended
  if (end.kind === "failed") throw end.error
  if (end.kind === "cancelled") throw userError("shutting_down")
  return format.whole(sink.all, end)
}

class CollectingSink implements SessionSink {
  readonly all: SessionDelta = {
    content: "",
    reasoning: "",
    toolCalls: [],
    logprobs: [],
    promptTokens: 0,
    completionTokens: 0,
  }
  readonly ended: Promise<SessionEnd>
  #resolve!: (end: SessionEnd) => void

  constructor() {
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  delta(delta: SessionDelta): void {
    append(this.all, delta)
  }

  end(end: SessionEnd): void {
    this.#resolve(end)
  }
}
