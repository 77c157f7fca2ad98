/** GET /openapi.json: what this server has, for people and for generators of clients. */
import type { FastifyInstance } from "fastify"
import { userError } from "../../errors.ts"
import type { Front } from "../../serve/front.ts"
import type { ServiceHost } from "../../serve/service.ts"
import { openapiDocument } from "../openapi/document.ts"
import type { Needs } from "../openapi/operation.ts"
import type { Protected } from "../protectable.ts"
import { version } from "./tokens.ts"

export function openapiRoute(
  app: FastifyInstance,
  host: ServiceHost,
  live: { readonly protect: readonly Protected[] },
): void {
  app.get("/openapi.json", async () => {
    const { service, tenants, detail } = host
    if (service === null) throw userError("not_ready", { detail })
    const { hasKeys, needsKey } = tenants
    const has = whatHas(service.front)
    return openapiDocument({ version, has, hasKeys, needsKey, protect: live.protect })
  })
}

/** Of an engine of another kind nothing is known of embeddings, and it is not asked for any. */
function whatHas(front: Front): Set<Needs> {
  const has = new Set<Needs>()
  if (!front.generates) return has
  has.add("generation")
  if (front.tokens !== null) has.add("tokens")
  if (front.model.pooling) has.add("embeddings")
  return has
}
