/** GET /health (the process lives), /ready (it takes requests), /metrics (Prometheus). */
import type { FastifyInstance } from "fastify"
import { userError } from "../../errors.ts"
import type { ServiceHost } from "../../serve/service.ts"
import type { Siblings } from "../../siblings/siblings.ts"
import type { MetricsPage } from "../../telemetry/summed-metrics.ts"
import { errorBody, errorHeaders } from "../errors.ts"

export function healthRoutes(app: FastifyInstance, host: ServiceHost): void {
  app.get("/health", async () => ({ status: "ok" }))

  app.get("/ready", async (_request, reply) => {
    const error = host.refusal
    if (error === null) return { status: "ready" }
    return reply.code(error.status).headers(errorHeaders(error)).send(errorBody(error))
  })
}

/** What processes of one address say together their parent adds up: it knows those that are gone, too. */
export const METRICS_PAGE = "metrics page"
/** What each answers it. */
export const METRICS = "metrics"

export function metricsRoute(app: FastifyInstance, host: ServiceHost, siblings: Siblings | null): void {
  siblings?.answers(METRICS, () => host.service?.metrics.registry.getMetricsAsJSON() ?? [])
  app.get("/metrics", async (_request, reply) => {
    const registry = host.service?.metrics.registry
    if (registry === undefined) throw userError("not_ready", { detail: host.detail })
    const { contentType, text }: MetricsPage =
      siblings === null
        ? { contentType: registry.contentType, text: await registry.metrics() }
        : await siblings.ask(METRICS_PAGE, null)
    return reply.header("content-type", contentType).send(text)
  })
}
