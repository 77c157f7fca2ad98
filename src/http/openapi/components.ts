/** Schemas that have a name in the document. */
import { setImmediate as otherWork } from "node:timers/promises"
import type { z } from "zod"
import { countSchema, messagesSchema } from "../anthropic/schema.ts"
import { embeddingsSchema } from "../embeddings-schema.ts"
import { responsesSchema } from "../responses/schema.ts"
import { chatSchema, completionSchema, message, slo } from "../schemas.ts"
import { detokenizeSchema, tokenizeSchema } from "../token-schemas.ts"
import * as chat from "./answers/chat.ts"
import { anthropicError, error, metrics, reason, timeParts, usage } from "./answers/common.ts"
import * as messages from "./answers/messages.ts"
import * as responses from "./answers/responses.ts"
import * as server from "./answers/server.ts"
import { FIELD_TEXTS } from "./field-texts.ts"
import { type JsonSchema, jsonSchemaOf } from "./json-schema.ts"

/** Bodies of requests, and what they share. */
const OF_REQUESTS: Readonly<Record<string, z.ZodType>> = {
  ChatCompletionRequest: chatSchema,
  CompletionRequest: completionSchema,
  ResponsesRequest: responsesSchema,
  MessagesRequest: messagesSchema,
  CountTokensRequest: countSchema,
  EmbeddingsRequest: embeddingsSchema,
  TokenizeRequest: tokenizeSchema,
  DetokenizeRequest: detokenizeSchema,
  ChatMessage: message,
  Slo: slo,
}

const OF_ANSWERS: Readonly<Record<string, z.ZodType>> = {
  ChatCompletion: chat.chatCompletion,
  ChatCompletionChunk: chat.chatChunk,
  ChatCompletionEvent: chat.chatEvent,
  Completion: chat.completion,
  CompletionChunk: chat.completionChunk,
  CompletionEvent: chat.completionEvent,
  Embeddings: chat.embeddings,
  Response: responses.response,
  ResponseItem: responses.outputItem,
  ResponseEvent: responses.responseEvent,
  ResponseDeleted: responses.responseDeleted,
  InputItems: responses.inputItems,
  Message: messages.anthropicMessage,
  MessageEvent: messages.messageEvent,
  TokenCount: messages.tokenCount,
  Tokenized: server.tokenized,
  Detokenized: server.detokenized,
  Model: server.model,
  Models: server.models,
  Status: server.status,
  ExplainedAnswer: server.explained,
  ExplainedRequest: server.explainedRequest,
  ExplainedRequests: server.explainedRequests,
  Metrics: metrics,
  Reason: reason,
  TimeParts: timeParts,
  Usage: usage,
  Error: error,
  AnthropicError: anthropicError,
}

const ALL = Object.entries({ ...OF_REQUESTS, ...OF_ANSWERS })
export const NAMES: ReadonlyMap<z.ZodType, string> = new Map(ALL.map(([name, schema]) => [schema, name]))

let made: Promise<Record<string, JsonSchema>> | null = null

/** By name; made once, a schema in each round of the event loop: all together they take as long as a few steps of an engine. */
export function componentSchemas(): Promise<Record<string, JsonSchema>> {
  made ??= make()
  return made
}

async function make(): Promise<Record<string, JsonSchema>> {
  const schemas: Record<string, JsonSchema> = {}
  for (const [name, schema] of ALL) {
    const json = jsonSchemaOf(schema, NAMES, schema)
    schemas[name] = name in OF_REQUESTS ? withTexts(name, json) : json
    await otherWork()
  }
  return schemas
}

function withTexts(component: string, json: JsonSchema): JsonSchema {
  const properties = Object.entries(json.properties as Record<string, JsonSchema>)
  return {
    ...json,
    properties: Object.fromEntries(properties.map(([name, own]) => [name, withText(component, name, own)])),
  }
}

/** Where a field may be null, what it is said to be else. */
function withText(component: string, name: string, own: JsonSchema): JsonSchema {
  const choices = (own.anyOf as JsonSchema[] | undefined) ?? [own]
  const parts = choices.flatMap((one) => [one, (one.items ?? {}) as JsonSchema])
  const inside = parts.find((part) => part.description !== undefined)?.description
  const description = own.description ?? FIELD_TEXTS[`${component}.${name}`] ?? inside ?? FIELD_TEXTS[name]
  return description === undefined ? own : { ...own, description }
}
