/** POST /v1/completions */
import type { FastifyInstance } from "fastify"
import { UserError } from "../../errors.ts"
import type { Prompt } from "../../replica/generation.ts"
import type { Front } from "../../serve/front.ts"
import type { Service } from "../../serve/service.ts"
import { readClientSloArgs } from "../../serve/slo-args.ts"
import { resolveSlo } from "../../serve/slo-resolve.ts"
import { outputGrammar } from "../../text/constraint/grammar.ts"
import { textFormat } from "../../text/constraint/text-format.ts"
import { exactBody, validate } from "../body.ts"
import { CompletionFormat } from "../format.ts"
import { MOST_CHOICES } from "../limits.ts"
import { classOfModel } from "../model-names.ts"
import { naming } from "../naming.ts"
import { respond } from "../respond.ts"
import { ignoredFields, longest, promptAndStops, samplingOf } from "../sampling.ts"
import { type CompletionBody, completionSchema } from "../schemas.ts"

export function completionsRoute(app: FastifyInstance, ready: () => Service): void {
  app.post("/v1/completions", async (request, reply) => {
    const service = ready()
    const { front } = service
    const body = validate(completionSchema, request.body)
    const prompts = promptsOf(body.prompt)
    const perPrompt = body.n ?? 1
    check(body, prompts.length * perPrompt)
    const args = readClientSloArgs(body.vllm_xargs)
    const slo = resolveSlo(service.classes, {
      ...{ slo: body.slo, args },
      serviceTier: body.service_tier,
      headers: request.headers,
      modelClass: classOfModel(service, body.model),
    })
    const exact = exactBody(request.body)
    const text = textFormat(body, exact)
    const wanted = typeof body.logprobs === "number" ? body.logprobs + 1 : 0
    const scored = body.echo === true && wanted > 0
    const generation = {
      tenant: request.tenant,
      // OpenAI's default for this endpoint.
      ...longest(body.max_tokens ?? 16),
      sampling: samplingOf(body, exact, {
        logprobs: wanted,
        ...(scored && { promptLogprobs: wanted }),
        grammar: outputGrammar({ text, calls: [], parallel: false }),
        vocabSize: front.model.vocabSize,
      }),
      parseSpecial: body.parse_special ?? null,
      ...promptAndStops(body),
      singleCall: false,
      slo,
      session: body.slo?.session ?? args.slo_session ?? null,
      // Plain text has no thinking markup, so only a forced length can say where thinking ends.
      reasoning: false,
      thinkingTokens: body.slo?.thinking_tokens ?? null,
    }
    const format = new CompletionFormat({
      id: request.id,
      model: body.model || front.model.name,
      slo,
      choices: prompts.length * perPrompt,
      perPrompt,
      includeUsage: body.stream_options?.include_usage ?? false,
      continuousUsage: body.stream_options?.continuous_usage_stats ?? false,
      ignored: ignoredFields(body),
      echo: body.echo ? { prompts: prompts.map((prompt) => promptText(prompt, front)), scored } : null,
    })
    const generations = prompts.map((prompt) => ({ ...generation, prompt }))
    const stream = body.stream ?? false
    return naming(text?.param ?? null, () =>
      respond({ service, request, reply, generations, perPrompt, format, stream }),
    )
  })
}

function check(body: CompletionBody, choices: number): void {
  const wrong = (param: string, why: string) =>
    new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
  if (choices > MOST_CHOICES)
    throw wrong("prompt", `prompts times n must be at most ${MOST_CHOICES}, not ${choices}`)
  if (body.echo && typeof body.logprobs === "number" && body.truncate_prompt_tokens)
    throw wrong(
      "truncate_prompt_tokens",
      "log-probabilities are those of the prompt that is repeated: leave one out",
    )
}

export function promptsOf(prompt: CompletionBody["prompt"]): Prompt[] {
  if (typeof prompt === "string") return [{ kind: "text", text: prompt }]
  if (prompt.length === 0 || typeof prompt[0] === "number")
    return [{ kind: "tokens", tokens: prompt as number[] }]
  return (prompt as (string | number[])[]).map((one) =>
    typeof one === "string" ? { kind: "text", text: one } : { kind: "tokens", tokens: one },
  )
}

/** A prompt as text; tokens that the model does not have are left to the intake, which refuses them. */
function promptText(prompt: Prompt, front: Front): string {
  if (prompt.kind === "text") return prompt.text
  if (prompt.kind === "chat") return ""
  return Buffer.concat(prompt.tokens.map((token) => front.tokenBytes(token) ?? NO_BYTES)).toString("utf8")
}

const NO_BYTES = new Uint8Array()
