/** POST /v1/chat/completions */
import type { FastifyInstance } from "fastify"
import type { Service } from "../../serve/service.ts"
import { exactBody, validate } from "../body.ts"
import { chatAsk } from "../chat-generation.ts"
import { ChatFormat } from "../format.ts"
import { naming } from "../naming.ts"
import { respond } from "../respond.ts"
import { ignoredFields } from "../sampling.ts"
import { chatSchema } from "../schemas.ts"

export function chatRoute(app: FastifyInstance, ready: () => Service): void {
  app.post("/v1/chat/completions", async (request, reply) => {
    const service = ready()
    const body = validate(chatSchema, request.body)
    const { generation, formedBy } = chatAsk(service, request, body, exactBody(request.body))
    const perPrompt = body.n ?? 1
    const format = new ChatFormat({
      id: request.id,
      model: body.model || service.front.model.name,
      slo: generation.slo,
      choices: perPrompt,
      perPrompt,
      includeUsage: body.stream_options?.include_usage ?? false,
      continuousUsage: body.stream_options?.continuous_usage_stats ?? false,
      ignored: ignoredFields(body),
    })
    const stream = body.stream ?? false
    return naming(formedBy, () =>
      respond({ service, request, reply, generations: [generation], perPrompt, format, stream }),
    )
  })
}
