/** POST /v1/responses, and what is kept of them: GET and DELETE /v1/responses/:id, GET /v1/responses/:id/input_items */
import { randomUUID } from "node:crypto"
import type { FastifyInstance, FastifyRequest } from "fastify"
import { UserError, userError } from "../../errors.ts"
import type { Service } from "../../serve/service.ts"
import { exactBody, validate } from "../body.ts"
import { chatAsk } from "../chat-generation.ts"
import { naming } from "../naming.ts"
import { inFieldsOf } from "../renaming.ts"
import { respond } from "../respond.ts"
import { ResponsesFormat } from "../responses/format.ts"
import { itemsOf, namedItems } from "../responses/items.ts"
import {
  type InputItem,
  MOST_ITEMS,
  type ResponsesBody,
  responsesSchema,
  type StoredItem,
} from "../responses/schema.ts"
import { type Conversation, type KeepsResponses, NO_CONVERSATION } from "../responses/store.ts"
import { chatOf, RESPONSES_FIELDS } from "../responses/to-chat.ts"
import { ignoredFields } from "../sampling.ts"

type OfResponse = { Params: { id: string }; Querystring: Record<string, string | string[]> }

export function responsesRoutes(app: FastifyInstance, ready: () => Service, store: KeepsResponses): void {
  app.post("/v1/responses", async (request, reply) => {
    const service = ready()
    const body = validate(responsesSchema, request.body)
    return inFieldsOf(RESPONSES_FIELDS, async () => {
      const { tenant } = request
      const before = await conversationBefore(store, tenant, body)
      const input = namedItems(await resolved(store, tenant, itemsOf(body.input)))
      const items = [...before.items, ...input]
      if (items.length > MOST_ITEMS) throw tooLong(body)
      const chat = chatOf(body, items, exactBody(request.body))
      const { generation, formedBy } = chatAsk(service, request, chat.body, chat.exact)
      const stream = body.stream ?? false
      const stored = store.keeps && body.store !== false
      const format = new ResponsesFormat({
        id: await idOf(request, store),
        model: body.model ?? service.front.model.name,
        slo: generation.slo,
        ...{ body, stream, stored },
        ignored: ignoredFields(chat.body),
        done: (response) => {
          if (!stored) return
          const kept = store.add(tenant, before, input, response)
          // Told by the log: the answer is right all the same.
          if (kept instanceof Promise)
            kept.catch((error: Error) => request.log.warn(`a response is not kept: ${error.message}`))
        },
      })
      const one = { generations: [generation], perPrompt: 1, body: chat.wire }
      return naming(formedBy, () => respond({ service, request, reply, ...one, format, stream }))
    })
  })

  app.get<OfResponse>("/v1/responses/:id", async (request, reply) => {
    checkQuery(request.query, ["include"])
    return reply
      .header("cache-control", "no-store")
      .send(kept(await store.get(request.tenant, request.params.id), request))
  })

  app.delete<OfResponse>("/v1/responses/:id", async (request) => {
    const { id } = request.params
    kept((await store.delete(request.tenant, id)) || null, request)
    return { id, object: "response", deleted: true }
  })

  app.get<OfResponse>("/v1/responses/:id/input_items", async (request, reply) => {
    const { tenant, params, query } = request
    checkQuery(query, ["include", "after", "limit", "order"])
    const items = kept(await store.input(tenant, params.id), request)
    return reply.header("cache-control", "no-store").send(pageOf(items, query))
  })
}

/** Of the request, as its log line has it, unless a client used that before. */
async function idOf({ id, tenant }: FastifyRequest, store: KeepsResponses): Promise<string> {
  const own = `resp_${id}`
  return (await store.has(tenant, own)) ? `resp_${randomUUID()}` : own
}

async function conversationBefore(
  store: KeepsResponses,
  tenant: string,
  { previous_response_id: id }: ResponsesBody,
): Promise<Conversation> {
  if (id === null || id === undefined) return NO_CONVERSATION
  const conversation = await store.conversation(tenant, id)
  if (conversation !== null) return conversation
  throw userError("response_not_found", { id: id.slice(0, 150) }, { param: "previous_response_id" })
}

/** Items that a client only names are those of answers that are kept. */
async function resolved(
  store: KeepsResponses,
  tenant: string,
  items: readonly InputItem[],
): Promise<StoredItem[]> {
  const all: StoredItem[] = []
  for (const [index, item] of items.entries()) {
    const found = item.type === "item_reference" ? await store.item(tenant, item.id) : item
    if (found !== null) all.push(found)
    else if (item.type === "item_reference") {
      const param = `input[${index}].id`
      throw userError("response_item_not_found", { param, id: item.id.slice(0, 150) }, { param })
    }
  }
  return all
}

function tooLong({ previous_response_id: previous }: ResponsesBody): UserError {
  const why = previous
    ? `with what came before '${previous.slice(0, 150)}' the conversation has`
    : "the conversation has"
  return wrong("input", `${why} more than ${MOST_ITEMS} items: leave out the oldest`)
}

function kept<T>(found: T | null, { params }: FastifyRequest<OfResponse>): T {
  if (found !== null) return found
  throw userError("response_not_found", { id: params.id.slice(0, 150) })
}

function checkQuery(query: OfResponse["Querystring"], known: readonly string[]): void {
  for (const name of Object.keys(query)) {
    if (known.includes(name)) continue
    if (name === "stream" && (query.stream === "false" || query.stream === "")) continue
    throw wrong(name, "it is not known here: a response that is kept is given whole")
  }
}

const USUAL_PAGE = 20
const MOST_PAGE = 100

/** A page of items: the last first, unless it is asked for the other way round. */
function pageOf(items: readonly StoredItem[], query: OfResponse["Querystring"]): object {
  const { order = "desc", after, limit = String(USUAL_PAGE) } = query
  const most = Number(limit)
  if (!(Number.isInteger(most) && most >= 1 && most <= MOST_PAGE))
    throw wrong("limit", `it must be a whole number of 1 to ${MOST_PAGE}`)
  if (order !== "asc" && order !== "desc") throw wrong("order", 'it must be "asc" or "desc"')
  const ordered = order === "asc" ? items : items.toReversed()
  const from = after === undefined ? 0 : ordered.findIndex(({ id }) => id === after) + 1
  if (after !== undefined && from === 0) throw wrong("after", "no item of this response has that id")
  const data = ordered.slice(from, from + most)
  return {
    ...{ object: "list", data },
    ...{ first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null },
    has_more: from + most < ordered.length,
  }
}

function wrong(param: string, why: string): UserError {
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
