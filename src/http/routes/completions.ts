/** POST /v1/completions */
import type { FastifyInstance } from "fastify"
import type { Prompt } from "../../serve/gateway.ts"
import type { Service } from "../../serve/service.ts"
import { resolveSlo } from "../../serve/slo-resolve.ts"
import { validate } from "../body.ts"
import { CompletionFormat } from "../format.ts"
import { classOfModel } from "../model-names.ts"
import { respond } from "../respond.ts"
import { samplingOf, stopsOf } from "../sampling.ts"
import { type CompletionBody, completionSchema } from "../schemas.ts"

export function completionsRoute(app: FastifyInstance, ready: () => Service): void {
  app.post("/v1/completions", async (request, reply) => {
    const service = ready()
    const body = validate(completionSchema, request.body)
    const { logprobs } = body
    const slo = resolveSlo(service.classes, {
      slo: body.slo,
      serviceTier: body.service_tier,
      headers: request.headers,
      modelClass: classOfModel(service, body.model),
    })
    const generation = {
      prompt: promptOf(body.prompt),
      // OpenAI's default for this endpoint.
      maxTokens: body.max_tokens ?? 16,
      sampling: samplingOf(
        body,
        typeof logprobs === "number" ? logprobs + 1 : 0,
        service.engine.model.vocabSize,
      ),
      stops: stopsOf(body.stop),
      slo,
      session: body.slo?.session ?? null,
      // Plain text has no thinking markup, so only a forced length can say where thinking ends.
      reasoning: false,
      thinkingTokens: body.slo?.thinking_tokens ?? null,
    }
    const format = new CompletionFormat({
      id: request.id,
      model: body.model ?? service.engine.model.name,
      slo,
      tokenizer: service.engine.tokenizer,
      includeUsage: body.stream_options?.include_usage ?? false,
      continuousUsage: body.stream_options?.continuous_usage_stats ?? false,
    })
    return respond({ service, request, reply, generation, format, stream: body.stream ?? false })
  })
}

function promptOf(prompt: CompletionBody["prompt"]): Prompt {
  if (typeof prompt === "string") return { kind: "text", text: prompt }
  const first = prompt[0]
  if (typeof first === "string") return { kind: "text", text: first }
  if (Array.isArray(first)) return { kind: "tokens", tokens: first }
  return { kind: "tokens", tokens: prompt as number[] }
}
