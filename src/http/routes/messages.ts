/** POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients ask. */
import type { FastifyInstance, FastifyRequest } from "fastify"
import { UserError, userError } from "../../errors.ts"
import type { Service, ServiceHost } from "../../serve/service.ts"
import type { TokenReader } from "../../serve/token-reader.ts"
import { checkEdits } from "../anthropic/context-edits.ts"
import { anthropicError } from "../anthropic/errors.ts"
import { MessagesFormat } from "../anthropic/format.ts"
import { countSchema, type MessagesBody, messagesSchema } from "../anthropic/schema.ts"
import { chatOf, countedChat, MESSAGES_FIELDS } from "../anthropic/to-chat.ts"
import { exactBody, validate } from "../body.ts"
import { chatAsk } from "../chat-generation.ts"
import { asUserError, errorHeaders } from "../errors.ts"
import { naming } from "../naming.ts"
import { watchClient } from "../presence.ts"
import { inFieldsOf } from "../renaming.ts"
import { respond } from "../respond.ts"
import { ignoredFields } from "../sampling.ts"

/** The first whose events these are. What later ones have in their answers is here as well; what they have no more in
 * requests (2026-10-21: temperature, top_p, top_k) means here what it meant. */
const FIRST_VERSION = "2023-06-01"

export function messagesRoutes(
  app: FastifyInstance,
  ready: () => Service,
  host: ServiceHost,
  live: { readonly bodyLimit: number },
): void {
  app.register(async (api) => {
    api.setErrorHandler((thrown, request, reply) => {
      const error = asUserError(thrown, live.bodyLimit, request.headers["content-type"])
      if (error.status >= 500 && error.code === null) request.log.error({ err: thrown }, "request failed")
      return reply.code(error.status).headers(errorHeaders(error)).send(anthropicError(error, request.id))
    })
    api.addHook("onSend", async (request, reply) => {
      reply.header("request-id", request.id)
    })

    api.post("/v1/messages", async (request, reply) => {
      checkVersion(request)
      const service = ready()
      const body = validate(messagesSchema, request.body)
      return inFieldsOf(MESSAGES_FIELDS, () => {
        checkBudget(body)
        checkEdits(body.context_management, service.front.contextTokens)
        const chat = chatOf(body, exactBody(request.body))
        const { generation, formedBy } = chatAsk(service, request, chat.body, chat.exact)
        const format = new MessagesFormat({
          id: request.id,
          model: body.model ?? service.front.model.name,
          slo: generation.slo,
          maxTokens: body.max_tokens,
          hidesThoughts: body.thinking?.display === "omitted",
          ignored: [...ignoredFields(chat.body), ...budgetIgnored(body)],
        })
        const stream = body.stream ?? false
        // `max_tokens` is required, so clients send a number that is enough for any model: it asks for no more than fits.
        const one = { generations: [{ ...generation, toContextEnd: true }], perPrompt: 1, body: chat.wire }
        return naming(formedBy, () => respond({ service, request, reply, ...one, format, stream }))
      })
    })

    api.post("/v1/messages/count_tokens", async (request, reply) => {
      checkVersion(request)
      const service = ready()
      const body = validate(countSchema, request.body)
      const abort = new AbortController()
      watchClient(reply.raw, abort, () => {})
      return inFieldsOf(MESSAGES_FIELDS, async () => {
        checkEdits(body.context_management, service.front.contextTokens)
        const chat = countedChat(body)
        const { generation } = chatAsk(service, request, chat, { ...chat })
        const { prompt, parseSpecial } = generation
        const { number: tenant } = host.tenant(request.tenant)
        const asked = { prompt, parseSpecial, addBos: true, tenant, signal: abort.signal }
        const tokens = await tokensOf(service).read(asked)
        return { input_tokens: tokens?.length ?? 0 }
      })
    })
  })
}

function tokensOf({ front }: Service): TokenReader {
  if (front.tokens !== null) return front.tokens
  throw userError("not_supported_here", {
    what: "/v1/messages/count_tokens",
    why: "it is a gateway, and prompts become tokens behind it",
    instead: "Ask a replica itself.",
  })
}

function checkVersion({ headers }: FastifyRequest): void {
  const version = headers["anthropic-version"]
  if (version === undefined) return
  if (/^\d{4}-\d\d-\d\d$/.test(String(version)) && version >= FIRST_VERSION) return
  throw wrong("anthropic-version", `it must be a date, and ${FIRST_VERSION} at the earliest`)
}

function checkBudget({ thinking, max_tokens: most }: MessagesBody): void {
  const budget = thinking?.type === "enabled" ? thinking.budget_tokens : null
  if (!budget || budget < most) return
  throw wrong("thinking.budget_tokens", `it must be less than max_tokens, which is ${most}`)
}

/** How long a model thinks is its own affair. */
function budgetIgnored({ thinking }: MessagesBody): string[] {
  return thinking?.type === "enabled" && thinking.budget_tokens ? ["thinking.budget_tokens"] : []
}

function wrong(param: string, why: string): UserError {
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
