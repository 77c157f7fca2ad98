/** POST /v1/chat/completions */
import type { FastifyInstance, FastifyRequest } from "fastify"
import type { ChatMessage } from "../../serve/chat-template.ts"
import type { GenerationRequest } from "../../serve/gateway.ts"
import type { Service } from "../../serve/service.ts"
import { resolveSlo } from "../../serve/slo-resolve.ts"
import { validate } from "../body.ts"
import { ChatFormat } from "../format.ts"
import { classOfModel } from "../model-names.ts"
import { respond } from "../respond.ts"
import { samplingOf, stopsOf } from "../sampling.ts"
import { type ChatBody, chatSchema } from "../schemas.ts"

export function chatRoute(app: FastifyInstance, ready: () => Service): void {
  app.post("/v1/chat/completions", async (request, reply) => {
    const service = ready()
    const body = validate(chatSchema, request.body)
    const generation = chatGeneration(service, request, body)
    const format = new ChatFormat({
      id: request.id,
      model: body.model ?? service.engine.model.name,
      slo: generation.slo,
      tokenizer: service.engine.tokenizer,
      includeUsage: body.stream_options?.include_usage ?? false,
      continuousUsage: body.stream_options?.continuous_usage_stats ?? false,
    })
    return respond({ service, request, reply, generation, format, stream: body.stream ?? false })
  })
}

function chatGeneration(
  service: Service,
  request: FastifyRequest,
  body: ChatBody,
): Omit<GenerationRequest, "signal" | "arrivalMs"> {
  const modelClass = classOfModel(service, body.model)
  const tools = body.tools && body.tools.length > 0 && body.tool_choice !== "none" ? body.tools : null
  const variables = body.chat_template_kwargs ?? {}
  const wanted = body.reasoning ?? variables.enable_thinking
  return {
    prompt: { kind: "chat", messages: body.messages.map(plainMessage), tools, variables },
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? null,
    sampling: samplingOf(
      body,
      body.logprobs ? (body.top_logprobs ?? 0) + 1 : 0,
      service.engine.model.vocabSize,
    ),
    stops: stopsOf(body.stop),
    slo: resolveSlo(service.classes, {
      slo: body.slo,
      serviceTier: body.service_tier,
      headers: request.headers,
      modelClass,
    }),
    session: body.slo?.session ?? null,
    reasoning: typeof wanted === "boolean" ? wanted : null,
    thinkingTokens: body.slo?.thinking_tokens ?? null,
  }
}

/** Content parts become one text; nulls disappear. */
function plainMessage(message: ChatBody["messages"][number]): ChatMessage {
  const { role, content, name, reasoning_content, tool_call_id, tool_calls } = message
  const text = Array.isArray(content) ? content.map((part) => part.text).join("") : (content ?? null)
  return {
    role,
    content: text,
    ...(name ? { name } : {}),
    ...(reasoning_content ? { reasoning_content } : {}),
    ...(tool_call_id ? { tool_call_id } : {}),
    ...(tool_calls && tool_calls.length > 0
      ? {
          tool_calls: tool_calls.map((call) => ({
            ...(call.id ? { id: call.id } : {}),
            type: "function",
            function: { name: call.function.name, arguments: call.function.arguments },
          })),
        }
      : {}),
  }
}
