/** GET / (the page) and /v1/slo/status (what it shows). */
import { readFileSync } from "node:fs"
import type { FastifyInstance } from "fastify"
import type { ServiceHost } from "../../serve/service.ts"
import { askingAll, type Siblings } from "../../siblings/siblings.ts"
import { type StatusJson, statusJson } from "../status.ts"
import { summedStatus } from "../summed-status.ts"

const PAGE = readFileSync(new URL("../page/index.html", import.meta.url))

export function pageRoute(app: FastifyInstance): void {
  app.get("/", async (_request, reply) =>
    reply
      .header("content-type", "text/html; charset=utf-8")
      .header(
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      )
      .send(PAGE),
  )
}

export function statusRoute(app: FastifyInstance, host: ServiceHost, siblings: Siblings | null): void {
  // Those that are asked serve.
  const all = askingAll(siblings, "status", () => statusJson(host) as StatusJson)
  app.get("/v1/slo/status", async (_request, reply) => {
    const status = host.phase === "ready" ? summedStatus(await all(null)) : statusJson(host)
    return reply.header("cache-control", "no-store").send(status)
  })
}
