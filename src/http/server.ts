/** The HTTP server: Fastify with limits against slow and huge requests, and every error in OpenAI's shape. */
import { randomUUID } from "node:crypto"
import type { Socket } from "node:net"
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from "fastify"
import { DEFAULT_TENANT } from "../config/tenants.ts"
import { type UserError, userError } from "../errors.ts"
import type { ApiKey } from "../serve/key-ring.ts"
import type { Service, ServiceHost } from "../serve/service.ts"
import type { Siblings } from "../siblings/siblings.ts"
import { registerJsonParser } from "./body.ts"
import { registerCors } from "./cors.ts"
import { errorBody, registerErrors, sendError } from "./errors.ts"
import { type HostRules, hostFault } from "./hosts.ts"
import type { Protected } from "./protectable.ts"
import { takeRequest } from "./rates.ts"
import { type KeepsResponses, ResponseStore, type ResponseStoreOptions } from "./responses/store.ts"
import { arrivalRoutes } from "./routes/arrivals.ts"
import { chatRoute } from "./routes/chat.ts"
import { completionsRoute } from "./routes/completions.ts"
import { embeddingsRoute } from "./routes/embeddings.ts"
import { healthRoutes, metricsRoute } from "./routes/health.ts"
import { messagesRoutes } from "./routes/messages.ts"
import { modelRoutes } from "./routes/models.ts"
import { openapiRoute } from "./routes/openapi.ts"
import { pageRoute, statusRoute } from "./routes/page.ts"
import { requestRoutes } from "./routes/requests.ts"
import { responsesRoutes } from "./routes/responses.ts"
import { tokenRoutes } from "./routes/tokens.ts"
import type { TlsPair } from "./tls.ts"
import { isWireUpgrade, wireUpgrade } from "./wire.ts"

declare module "fastify" {
  interface FastifyRequest {
    /** performance.now() when the request's head had been read. */
    arrivalMs: number
    /** Name of the tenant that it is of. */
    tenant: string
    /** null: it has none. */
    apiKey: ApiKey | null
    /** What its key has left, as headers of its response. */
    rateHeaders: Record<string, string>
  }
}

/** What may be changed while the server runs. */
export interface LiveOptions {
  /** Largest request body, bytes. */
  bodyLimit: number
  /** Which hosts it answers for; null: any. */
  hosts: HostRules | null
  /** Origins whose pages may call it (cors.ts). */
  corsOrigins: readonly string[]
  /** Routes outside the API that need a key, where some tenant has one. */
  protect: readonly Protected[]
}

export interface ServerOptions extends Partial<LiveOptions> {
  host: ServiceHost
  logger?: FastifyBaseLogger
  /** In place of the same options here. */
  live?: LiveOptions
  /** Over TLS. */
  tls?: TlsPair
  /** What bodies on their way may hold, bytes: for the first to come, and as much for tenants below their share. */
  bodyMemory?: number
  /** What is kept of responses, or what keeps them. */
  responses?: ResponseStoreOptions | KeepsResponses
  /** Others that serve the same address: what is asked of the whole server, all of them say. Default: there are none. */
  siblings?: Siblings | null
  /** A request must be received in full within this time. */
  requestTimeoutMs?: number
}

const BODY_LIMIT = 8 * 1024 * 1024
const BODY_MEMORY = 256 * 1024 * 1024
const REQUEST_TIMEOUT_MS = 30_000
const KEEP_ALIVE_MS = 65_000
/** A connection that is silent for this long is asked by TCP whether its other end still exists. */
const TCP_KEEP_ALIVE_MS = 10_000
/** A client's request id is taken over when it is harmless in a log and a header. */
const REQUEST_ID = /^[\w.:-]{1,128}$/

export const usualBodyMemory = (bodyLimit: number): number => Math.max(BODY_MEMORY, 8 * bodyLimit)

export function buildServer(options: ServerOptions): FastifyInstance {
  const { host, siblings = null } = options
  const { bodyLimit: most = BODY_LIMIT, hosts = null, protect = [], corsOrigins = [] } = options
  const live = options.live ?? { bodyLimit: most, hosts, protect, corsOrigins }
  const { bodyLimit } = live
  const requestTimeout = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS
  const http = {
    headersTimeout: requestTimeout,
    keepAlive: true,
    keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
    // Checked often enough that the timeout means what it says.
    connectionsCheckingInterval: Math.max(100, Math.min(5000, requestTimeout / 4)),
    shouldUpgradeCallback: isWireUpgrade,
  }
  const app = Fastify({
    ...(options.logger === undefined ? { logger: false } : { loggerInstance: options.logger }),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit,
    requestTimeout,
    keepAliveTimeout: KEEP_ALIVE_MS,
    ...(options.tls === undefined ? { http } : { https: { ...http, ...options.tls } }),
    forceCloseConnections: "idle",
    return503OnClosing: false,
    genReqId: (request) => {
      const given = request.headers["x-request-id"]
      return typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID()
    },
    clientErrorHandler: (error, socket) => refuse(socket, clientError(error, requestTimeout)),
    // A URL that cannot be decoded.
    frameworkErrors: (_error, request, reply) =>
      void sendError(reply.header("x-request-id", request.id), userError("invalid_http")),
  }) as FastifyInstance

  // A client that closes its sending side after its request gets its answer; else its connection would be ended.
  Object.assign(app.server, { httpAllowHalfOpen: true })
  app.decorateRequest("arrivalMs", 0)
  app.decorateRequest("tenant", DEFAULT_TENANT)
  app.decorateRequest("apiKey", null)
  app.decorateRequest("rateHeaders")
  app.addHook("onRequest", (request, reply, done) => {
    request.arrivalMs = performance.now()
    reply.header("x-request-id", request.id)
    if (host.phase === "draining") reply.header("connection", "close")
    done(live.hosts === null ? undefined : hostFault(request.headers.host, live.hosts))
  })
  // Of a body that is refused the rest is read and dropped, by Node, within the request's time: on a connection that is closed
  // with bytes unread the answer is lost as a rule, and a proxy in between says 502.
  app.addHook("onSend", (request, reply, _, done) => {
    if (host.phase !== "draining" && !request.raw.complete) reply.removeHeader("connection")
    done()
  })
  app.addHook("onResponse", (request, reply, done) => {
    const ms = Math.round(performance.now() - request.arrivalMs)
    const { method, url, tenant } = request
    const whose = tenant === DEFAULT_TENANT ? {} : { tenant }
    request.log.debug({ method, url, status: reply.statusCode, ms, ...whose }, "answered")
    done()
  })
  registerCors(app, live)
  registerJsonParser(app, { live, bodyMemory: options.bodyMemory ?? usualBodyMemory(bodyLimit) }, host)
  registerErrors(app, live)

  const ready = (): Service => {
    if (host.phase === "ready" && host.service !== null) return host.service
    throw host.phase === "draining"
      ? userError("shutting_down")
      : userError("not_ready", { detail: host.detail })
  }
  const { responses: kept = {} } = options
  const responses = "keeps" in kept ? kept : new ResponseStore(kept)
  // On the routes themselves, not by their URL: that can be spelled in several ways.
  app.register(async (api) => {
    api.addHook("onRequest", (request, reply, done) => {
      const { tenant, key } = host.tenants.originOf(request.headers)
      request.tenant = tenant
      request.apiKey = key
      const taken = takeRequest(host, request, reply)
      if (taken === undefined) done()
      else taken.then(() => done(), done)
    })
    chatRoute(api, ready)
    completionsRoute(api, ready)
    responsesRoutes(api, ready, responses)
    messagesRoutes(api, ready, host, live)
    embeddingsRoute(api, ready)
    modelRoutes(api, ready)
    tokenRoutes(api, ready, host)
    // Where tenants have keys each sees its own: what others ask, and how much, is theirs.
    requestRoutes(api, ready, (request) => (host.tenants.hasKeys ? request.tenant : null), siblings)
  })
  const outside = (what: Protected, routes: (scope: FastifyInstance) => void) =>
    app.register(async (scope) => {
      scope.addHook("onRequest", async ({ headers }) => {
        if (live.protect.includes(what)) host.tenants.demandKey(headers)
      })
      routes(scope)
    })
  outside("health", (scope) => healthRoutes(scope, host))
  outside("metrics", (scope) => metricsRoute(scope, host, siblings))
  outside("status", (scope) => {
    statusRoute(scope, host, siblings)
    arrivalRoutes(scope, ready, siblings)
  })
  app.register(async (open) => {
    pageRoute(open)
    openapiRoute(open, host, live)
  })
  wireUpgrade(app, host, live)
  return app
}

/** Errors below HTTP: what arrived was not a request, or did not arrive in time. */
function clientError(error: NodeJS.ErrnoException, requestTimeoutMs: number): UserError | null {
  if (error.code === "ECONNRESET") return null
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT")
    return userError("request_timeout", { seconds: requestTimeoutMs / 1000 })
  if (error.code === "HPE_HEADER_OVERFLOW") return userError("headers_too_large")
  return userError("invalid_http")
}

const REASONS: Record<number, string> = {
  400: "Bad Request",
  408: "Request Timeout",
  431: "Request Header Fields Too Large",
}

function refuse(socket: Socket, error: UserError | null): void {
  if (error === null || !socket.writable) {
    socket.destroy()
    return
  }
  const body = JSON.stringify(errorBody(error))
  socket.end(
    `HTTP/1.1 ${error.status} ${REASONS[error.status]}\r\nconnection: close\r\n` +
      `content-type: application/json; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    () => socket.destroy(),
  )
}
