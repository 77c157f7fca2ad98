/** The table of routes, as they are described. */
import { z } from "zod"
import { countSchema, messagesSchema } from "../anthropic/schema.ts"
import { embeddingsSchema } from "../embeddings-schema.ts"
import { responsesSchema } from "../responses/schema.ts"
import { chatSchema, completionSchema } from "../schemas.ts"
import { detokenizeSchema, tokenizeSchema } from "../token-schemas.ts"
import * as chat from "./answers/chat.ts"
import * as messages from "./answers/messages.ts"
import * as responses from "./answers/responses.ts"
import * as server from "./answers/server.ts"
import { OF_BODY, OF_CHAT, OF_COMPUTING, OF_GENERATION, OF_MODEL, OF_PROMPT } from "./errors.ts"
import * as examples from "./examples.ts"
import type { Operation } from "./operation.ts"
import { ANTHROPIC_VERSION, inPath, inQuery, OF_SCHEDULED, REQUEST_ID } from "./parameters.ts"

const JSON_TYPE = "application/json"
const EVENTS = "text/event-stream"

const GENERATION: readonly Operation[] = [
  {
    ...{ method: "post", path: "/v1/chat/completions", id: "createChatCompletion", tag: "generation" },
    summary: "The next message of a conversation",
    description:
      "OpenAI's. Streams end with `[DONE]`; an error after the first token is an event with `error`.",
    parameters: OF_SCHEDULED,
    body: { schema: chatSchema, examples: examples.CHAT },
    answers: { [JSON_TYPE]: chat.chatCompletion, [EVENTS]: chat.chatEvent },
    ...{ errors: OF_CHAT, needs: "generation", key: "api" },
  },
  {
    ...{ method: "post", path: "/v1/completions", id: "createCompletion", tag: "generation" },
    summary: "How a text goes on",
    description:
      "OpenAI's. Streams end with `[DONE]`; an error after the first token is an event with `error`.",
    parameters: OF_SCHEDULED,
    body: { schema: completionSchema, examples: examples.COMPLETION },
    answers: { [JSON_TYPE]: chat.completion, [EVENTS]: chat.completionEvent },
    ...{ errors: OF_GENERATION, needs: "generation", key: "api" },
  },
  {
    ...{ method: "post", path: "/v1/responses", id: "createResponse", tag: "generation" },
    summary: "A response",
    description: "OpenAI's Responses API. A stream ends with the event that has the whole response.",
    parameters: OF_SCHEDULED,
    body: { schema: responsesSchema, examples: examples.RESPONSES },
    answers: { [JSON_TYPE]: responses.response, [EVENTS]: responses.responseEvent },
    errors: [...OF_CHAT, "response_not_found", "response_item_not_found"],
    ...{ needs: "generation", key: "api" },
  },
  {
    ...{ method: "get", path: "/v1/responses/{id}", route: "/v1/responses/:id" },
    ...{ id: "getResponse", tag: "generation", summary: "A response that is stored" },
    parameters: [REQUEST_ID, inPath("id", "Of the response.")],
    answers: { [JSON_TYPE]: responses.response },
    ...{ errors: ["invalid_value", "response_not_found"], needs: "generation", key: "api" },
  },
  {
    ...{ method: "delete", path: "/v1/responses/{id}", route: "/v1/responses/:id" },
    ...{ id: "deleteResponse", tag: "generation", summary: "Store a response no longer" },
    parameters: [REQUEST_ID, inPath("id", "Of the response.")],
    answers: { [JSON_TYPE]: responses.responseDeleted },
    ...{ errors: ["response_not_found"], needs: "generation", key: "api" },
  },
  {
    ...{ method: "get", path: "/v1/responses/{id}/input_items", route: "/v1/responses/:id/input_items" },
    ...{ id: "listInputItems", tag: "generation", summary: "What a response was made from" },
    parameters: [
      REQUEST_ID,
      inPath("id", "Of the response."),
      inQuery("limit", "Items of a page; default 20.", z.int().min(1).max(100)),
      inQuery("order", "`desc`, the default: the last first.", z.enum(["asc", "desc"])),
      inQuery("after", "Id of the last item of the page before.", z.string()),
    ],
    answers: { [JSON_TYPE]: responses.inputItems },
    ...{ errors: ["invalid_value", "response_not_found"], needs: "generation", key: "api" },
  },
  {
    ...{ method: "post", path: "/v1/messages", id: "createMessage", tag: "generation" },
    summary: "A message",
    description: "Anthropic's Messages API. A stream ends with `message_stop`, or with `error`.",
    parameters: [...OF_SCHEDULED, ANTHROPIC_VERSION],
    body: { schema: messagesSchema, examples: examples.MESSAGES },
    answers: { [JSON_TYPE]: messages.anthropicMessage, [EVENTS]: messages.messageEvent },
    ...{ errors: OF_CHAT, anthropic: true, needs: "generation", key: "api" },
  },
  {
    ...{ method: "post", path: "/v1/messages/count_tokens", id: "countMessageTokens", tag: "tokens" },
    summary: "How many tokens a message's prompt has",
    parameters: [REQUEST_ID, ANTHROPIC_VERSION],
    body: { schema: countSchema, examples: examples.COUNT },
    answers: { [JSON_TYPE]: messages.tokenCount },
    errors: [...OF_PROMPT, "chat_template_error"],
    ...{ anthropic: true, needs: "tokens", key: "api" },
  },
  {
    ...{ method: "post", path: "/v1/embeddings", id: "createEmbeddings", tag: "generation" },
    summary: "Embeddings of texts",
    description: "Each input is scheduled as a prompt, with a time to its first token and no more.",
    parameters: OF_SCHEDULED,
    body: { schema: embeddingsSchema, examples: examples.EMBEDDINGS },
    answers: { [JSON_TYPE]: chat.embeddings },
    ...{ errors: OF_COMPUTING, needs: "embeddings", key: "api" },
  },
]

const TOKENS: readonly Operation[] = [
  {
    ...{ method: "post", path: "/tokenize", id: "tokenize", tag: "tokens" },
    summary: "Tokens of a text or of a conversation",
    parameters: [REQUEST_ID],
    body: { schema: tokenizeSchema, examples: examples.TOKENIZE },
    answers: { [JSON_TYPE]: server.tokenized },
    errors: [...OF_PROMPT, "chat_template_error"],
    ...{ needs: "tokens", key: "api" },
  },
  {
    ...{ method: "post", path: "/detokenize", id: "detokenize", tag: "tokens" },
    summary: "The text of tokens",
    parameters: [REQUEST_ID],
    body: { schema: detokenizeSchema, examples: examples.DETOKENIZE },
    answers: { [JSON_TYPE]: server.detokenized },
    errors: [...OF_BODY, "model_not_found", "not_supported_here"],
    ...{ needs: "tokens", key: "api" },
  },
  {
    ...{ method: "get", path: "/tokenizer_info", id: "getTokenizerInfo", tag: "tokens" },
    summary: "The model's control tokens and chat template, as evaluation harnesses read them",
    answers: { [JSON_TYPE]: server.tokenizerInfo },
    ...{ errors: [...OF_MODEL, "not_supported_here"], needs: "tokens", key: "api" },
  },
]

const MODELS: readonly Operation[] = [
  {
    ...{ method: "get", path: "/v1/models", id: "listModels", tag: "models" },
    summary: "The model, and the model with each SLO class",
    answers: { [JSON_TYPE]: server.models },
    ...{ errors: OF_MODEL, key: "api" },
  },
  {
    ...{ method: "get", path: "/v1/models/{model}", route: "/v1/models/*", id: "getModel", tag: "models" },
    summary: "One of them",
    parameters: [inPath("model", "Its id; one that has slashes may be written as it is.")],
    answers: { [JSON_TYPE]: server.model },
    ...{ errors: [...OF_MODEL, "model_not_found"], key: "api" },
  },
]

const SLO: readonly Operation[] = [
  {
    ...{ method: "get", path: "/v1/slo/requests", id: "listRequests", tag: "slo" },
    summary: "How the last requests went, and why",
    description: "Where tenants have keys, those of the key's tenant.",
    parameters: [
      inQuery("missed", "Only those that missed an objective.", z.enum(["", "1", "true", "0", "false"])),
      inQuery("limit", "At most so many; default 100.", z.int().min(1).max(1000)),
      inQuery("since", "Not before: seconds since 1970, or a date.", z.string()),
    ],
    answers: { [JSON_TYPE]: server.explainedRequests },
    ...{ errors: [...OF_MODEL, "invalid_value"], key: "api" },
  },
  {
    ...{ method: "get", path: "/v1/slo/requests/{id}", route: "/v1/slo/requests/:id" },
    ...{ id: "explainRequest", tag: "slo", summary: "Where the time of one request went" },
    parameters: [inPath("id", "The response's id, or its header x-request-id.")],
    answers: { [JSON_TYPE]: server.explainedRequest },
    ...{ errors: [...OF_MODEL, "request_not_found"], key: "api" },
  },
  {
    ...{ method: "get", path: "/v1/slo/status", id: "getStatus", tag: "slo" },
    summary: "Live attainment, queue, memory, replicas and tenants",
    answers: { [JSON_TYPE]: server.status },
    ...{ errors: [], key: "status" },
  },
  {
    ...{ method: "get", path: "/v1/slo/arrivals", id: "listArrivals", tag: "slo" },
    summary: "The last arrivals as numbers, for `slos-serve advise`",
    answers: { "application/x-ndjson": server.arrivals },
    ...{ errors: OF_MODEL, key: "status" },
  },
]

const OPERATION: readonly Operation[] = [
  {
    ...{ method: "get", path: "/health", id: "getHealth", tag: "operation" },
    ...{ summary: "The process lives", answers: { [JSON_TYPE]: server.health } },
    ...{ errors: [], key: "health" },
  },
  {
    ...{ method: "get", path: "/ready", id: "getReadiness", tag: "operation" },
    ...{ summary: "It takes requests", answers: { [JSON_TYPE]: server.readiness } },
    ...{ errors: [...OF_MODEL, "engine_down"], key: "health" },
  },
  {
    ...{ method: "get", path: "/metrics", id: "getMetrics", tag: "operation" },
    ...{ summary: "Prometheus metrics", answers: { "text/plain": server.prometheus } },
    ...{ errors: ["not_ready"], key: "metrics" },
  },
  {
    ...{ method: "get", path: "/version", id: "getVersion", tag: "operation" },
    ...{ summary: "The server's version", answers: { [JSON_TYPE]: server.version } },
    ...{ errors: [], key: "api" },
  },
  {
    ...{ method: "get", path: "/openapi.json", id: "getOpenapi", tag: "operation" },
    ...{ summary: "This description", answers: { [JSON_TYPE]: server.document } },
    ...{ errors: ["not_ready"], key: "none" },
  },
  {
    ...{ method: "get", path: "/", id: "getPage", tag: "operation" },
    ...{ summary: "A page with live figures and a chat box", answers: { "text/html": server.page } },
    ...{ errors: [], key: "none" },
  },
]

export const OPERATIONS: readonly Operation[] = [...GENERATION, ...TOKENS, ...MODELS, ...SLO, ...OPERATION]
