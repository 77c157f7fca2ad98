/** GET /v1/models and /v1/models/:id */
import type { FastifyInstance } from "fastify"
import { userError } from "../../errors.ts"
import type { Service } from "../../serve/service.ts"
import { modelNames, type NamedModel } from "../model-names.ts"

export function modelRoutes(app: FastifyInstance, ready: () => Service): void {
  app.get("/v1/models", async () => {
    const service = ready()
    return { object: "list", data: modelNames(service).map((model) => modelJson(service, model)) }
  })

  app.get<{ Params: { "*": string } }>("/v1/models/*", async (request) => {
    const service = ready()
    const id = request.params["*"]
    const found = modelNames(service).find((model) => model.id === id)
    if (found !== undefined) return modelJson(service, found)
    throw userError(
      "model_not_found",
      { model: id.slice(0, 100), available: service.front.model.name },
      { param: "model" },
    )
  })
}

function modelJson(service: Service, named: NamedModel): object {
  const { front } = service
  return {
    id: named.id,
    object: "model",
    created: Math.floor(service.startedMs / 1000),
    owned_by: "slos-serve",
    root: front.model.name,
    parent: named.class === null ? null : front.model.name,
    max_model_len: front.contextTokens,
    ...(named.class === null ? {} : { slo_class: named.class.name, description: named.class.description }),
    ...(front.model.random ? { random_weights: true } : {}),
  }
}
