/** Every failure as a response in OpenAI's error shape. */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import { UserError, userError } from "../errors.ts"
import { KNOWN_ENCODINGS } from "./body-encoding.ts"

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null }
  /** Of what is refused for lack of room: when there should be some. */
  metrics?: { expected_wait_ms: number }
}

export function errorBody(error: UserError): ErrorBody {
  const { message, type, param, code, retryMs } = error
  const told = { error: { message, type, param, code } }
  return retryMs === null ? told : { ...told, metrics: { expected_wait_ms: Math.round(retryMs) } }
}

/** How soon it is worth to come back, ms: at once, or when an engine may have been tried again. */
const RETRY_MS = 500
const RETRY_DOWN_MS = 2000

/** Extra headers of an error: when to come back, why a request was dropped, what it must have. */
export function errorHeaders(error: UserError): Record<string, string> {
  if (error.status === 401) return { "www-authenticate": "Bearer" }
  if (error.status !== 429 && error.status !== 503) return {}
  const dropped = { "x-llm-d-request-dropped-reason": error.code ?? "overloaded" }
  // OpenAI's clients retry a 429 unless they are told not to.
  if (error.code === "queue_too_small" || error.code === "token_limit_too_small")
    return { ...dropped, "x-should-retry": "false" }
  const least = error.code === "engine_down" ? RETRY_DOWN_MS : RETRY_MS
  // Jitter, so that clients refused together do not come back together; those of a full queue are told when their turn is.
  const jitter = error.code === "queue_full" ? 1 : 1 + Math.random() / 2
  const retryMs =
    error.retryMs === null
      ? least + Math.floor(Math.random() * 2 * least)
      : Math.round(error.retryMs * jitter)
  return {
    "retry-after": String(Math.ceil(retryMs / 1000)),
    "retry-after-ms": String(retryMs),
    ...dropped,
  }
}

/** Whatever was thrown, as something the client can read. Unexpected errors say nothing of the inside. */
export function asUserError(error: unknown, bodyLimit: number, contentType = "none"): UserError {
  if (error instanceof UserError) return error
  const { code, statusCode, message } = error as FastifyError
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") return userError("body_too_large", { limit: bodyLimit })
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE")
    return userError("unsupported_media_type", { type: contentType.slice(0, 100) })
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return new UserError(message, { status: statusCode })
  return new UserError("The server had an error while processing your request. Its log has the details.", {
    status: 500,
    cause: error,
  })
}

export function sendError(reply: FastifyReply, error: UserError): FastifyReply {
  if (error.code === "unsupported_content_encoding")
    reply.header("accept-encoding", KNOWN_ENCODINGS.join(", "))
  return reply.code(error.status).headers(errorHeaders(error)).send(errorBody(error))
}

/** Error and not-found handlers; answers to requests that never became HTTP are in server.ts. */
export function registerErrors(app: FastifyInstance, live: { readonly bodyLimit: number }): void {
  app.setErrorHandler((thrown, request, reply) => {
    const error = asUserError(thrown, live.bodyLimit, request.headers["content-type"])
    if (error.status >= 500 && error.code === null) request.log.error({ err: thrown }, "request failed")
    return sendError(reply, error)
  })
  app.setNotFoundHandler((request, reply) => {
    const url = request.url.split("?")[0]!.slice(0, 200)
    const allowed = allowedOn(app, url)
    if (allowed.length > 0) reply.header("allow", allowed.join(", "))
    return sendError(reply, notFound(request, url, allowed))
  })
}

/** Methods that a URL has. */
function allowedOn(app: FastifyInstance, url: string): string[] {
  return (["GET", "HEAD", "POST", "DELETE"] as const).filter(
    (method) => app.findRoute({ method, url }) !== null,
  )
}

function notFound({ method }: FastifyRequest, url: string, allowed: readonly string[]): UserError {
  if (allowed.length > 0)
    return userError("method_not_allowed", { method, url, allowed: allowed.join(" or ") })
  return userError("unknown_url", {
    method,
    url,
    available:
      "/v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, /v1/embeddings, /v1/models, /tokenize, " +
      "/health, /ready, /metrics, /openapi.json, /",
  })
}
