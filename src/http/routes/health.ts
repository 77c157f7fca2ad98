/** GET /health (the process lives), /ready (it takes requests), /metrics (Prometheus). */
import type { FastifyInstance } from "fastify"
import { userError } from "../../errors.ts"
import type { ServiceHost } from "../../serve/service.ts"
import { errorBody } from "../errors.ts"

export function healthRoutes(app: FastifyInstance, host: ServiceHost): void {
  app.get("/health", async () => ({ status: "ok" }))

  app.get("/ready", async (_request, reply) => {
    if (host.phase === "ready") return { status: "ready" }
    const error =
      host.phase === "draining" ? userError("shutting_down") : userError("not_ready", { detail: host.detail })
    return reply.code(503).header("retry-after", "1").send(errorBody(error))
  })

  app.get("/metrics", async (_request, reply) => {
    const registry = host.service?.metrics.registry
    if (registry === undefined) throw userError("not_ready", { detail: host.detail })
    return reply.header("content-type", registry.contentType).send(await registry.metrics())
  })
}
