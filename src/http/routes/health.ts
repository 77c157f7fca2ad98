/** GET /health (the process lives), /ready (it takes requests), /metrics (Prometheus). */
import type { FastifyInstance } from "fastify"
import { userError } from "../../errors.ts"
import type { ServiceHost } from "../../serve/service.ts"
import { errorBody, errorHeaders } from "../errors.ts"

export function healthRoutes(app: FastifyInstance, host: ServiceHost): void {
  app.get("/health", async () => ({ status: "ok" }))

  app.get("/ready", async (_request, reply) => {
    const error = host.refusal
    if (error === null) return { status: "ready" }
    return reply.code(error.status).headers(errorHeaders(error)).send(errorBody(error))
  })
}

export function metricsRoute(app: FastifyInstance, host: ServiceHost): void {
  app.get("/metrics", async (_request, reply) => {
    const registry = host.service?.metrics.registry
    if (registry === undefined) throw userError("not_ready", { detail: host.detail })
    return reply.header("content-type", registry.contentType).send(await registry.metrics())
  })
}
