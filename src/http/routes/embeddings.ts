/** POST /v1/embeddings: prompts without answers, by the same planner as all else, each with a TTFT. */
import type { FastifyInstance } from "fastify"
import { GREEDY } from "../../engine/port.ts"
import { UserError, userError } from "../../errors.ts"
import type { Service } from "../../serve/service.ts"
import { readClientSloArgs } from "../../serve/slo-args.ts"
import { resolveSlo } from "../../serve/slo-resolve.ts"
import { validate } from "../body.ts"
import { EmbeddingFormat } from "../embedding-format.ts"
import { embeddingsSchema } from "../embeddings-schema.ts"
import { classOfModel } from "../model-names.ts"
import { respond } from "../respond.ts"
import { promptsOf } from "./completions.ts"

export function embeddingsRoute(app: FastifyInstance, ready: () => Service): void {
  app.post("/v1/embeddings", async (request, reply) => {
    const service = ready()
    const { front } = service
    const body = validate(embeddingsSchema, request.body)
    const modelClass = classOfModel(service, body.model)
    if (front.model.pooling === null)
      throw userError("not_supported_here", {
        what: "/v1/embeddings",
        why: `the model ${front.model.name} pools its hidden states in a way that is not done here`,
        instead: "Serve one with the pooling last or mean.",
      })
    const args = readClientSloArgs(body.vllm_xargs)
    const { headers, tenant } = request
    const slo = resolveSlo(service.classes, {
      ...{ slo: body.slo, args, headers, modelClass },
      serviceTier: body.service_tier,
    })
    const common = {
      ...{ tenant, maxTokens: 0, sampling: { ...GREEDY, embedding: true }, stops: [], slo },
      ...{ singleCall: false, session: null, reasoning: false, thinkingTokens: null },
      parseSpecial: body.parse_special ?? null,
      ...(body.truncate_prompt_tokens && {
        lastPromptTokens:
          body.truncate_prompt_tokens < 0 ? ("fitting" as const) : body.truncate_prompt_tokens,
      }),
    }
    const generations = promptsOf(body.input).map((prompt) => ({ ...common, prompt }))
    if (generations.length === 0) throw wrong("input", "it must not be empty")
    const format = new EmbeddingFormat({
      model: body.model || front.model.name,
      ...{ slo, base64: body.encoding_format === "base64" },
    })
    try {
      return await respond({ service, request, reply, generations, perPrompt: 1, format, stream: false })
    } catch (error) {
      throw ofInput(error)
    }
  })
}

/** What reads prompts calls them so. */
function ofInput(error: unknown): unknown {
  if (!(error instanceof UserError) || (error.param !== "prompt" && error.param !== "messages")) return error
  const { code, status } = error
  return new UserError(error.message.replaceAll("'prompt'", "'input'"), {
    code,
    status,
    param: "input",
    cause: error,
  })
}

function wrong(param: string, why: string): UserError {
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
