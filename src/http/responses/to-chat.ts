/** A request of the Responses API as the chat that it asks for: one path leads on from there. */
import { UserError } from "../../errors.ts"
import { validate } from "../body.ts"
import type { Exact } from "../chat-generation.ts"
import { type ChatBody, chatSchema } from "../schemas.ts"
import { messagesOf } from "./items.ts"
import type { ResponsesBody, StoredItem } from "./schema.ts"

/** What chats call a field, and what the Responses API calls it. */
export const RESPONSES_FIELDS: Readonly<Record<string, string>> = {
  messages: "input",
  response_format: "text.format",
  max_tokens: "max_output_tokens",
}

export interface ChatOf {
  body: ChatBody
  /** Schemas in it as they were written. */
  exact: Exact
  /** As other servers are asked for it. */
  wire: Exact
}

/** `items`: all of the conversation; `exact`: the body as it was written. */
export function chatOf(body: ResponsesBody, items: readonly StoredItem[], exact: Exact): ChatOf {
  const wire = {
    ...sharedFields(body),
    messages: messagesOf(items, body.instructions ?? null),
    ...defined({
      max_tokens: body.max_output_tokens,
      chat_template_kwargs: variablesOf(body),
      reasoning_effort: body.reasoning?.effort,
      truncate_prompt_tokens: body.truncation === "auto" ? -1 : body.truncate_prompt_tokens,
      ...logprobsOf(body),
      ...formedBy(body, body),
    }),
  }
  return {
    wire,
    body: validate(chatSchema, wire),
    exact: { ...wire, ...formedBy(body, exact), seed: exact.seed },
  }
}

/** Fields that chats have as well, under the same names. */
function sharedFields(body: ResponsesBody): Record<string, unknown> {
  const shared = Object.entries(body).filter(
    ([name]) => Object.hasOwn(chatSchema.shape, name) && !OWN.has(name),
  )
  return defined(Object.fromEntries(shared))
}

/** Those that mean something else there. */
const OWN = new Set(["tools", "tool_choice", "reasoning", "top_logprobs", "stream_options"])

function defined(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  )
}

/** Of the template, by which other servers are told as well whether to think; "minimal" is as the model does by itself. */
function variablesOf({ reasoning, chat_template_kwargs: given }: ResponsesBody): object | undefined {
  const { effort } = reasoning ?? {}
  if (!effort || effort === "minimal") return given ?? undefined
  return { enable_thinking: effort !== "none", ...given }
}

function logprobsOf({ include, top_logprobs: top }: ResponsesBody): Record<string, unknown> {
  if (include?.includes("message.output_text.logprobs")) return { logprobs: true, top_logprobs: top ?? 0 }
  if (!top) return {}
  throw wrong("top_logprobs", "it needs 'include' to have \"message.output_text.logprobs\"")
}

/** Tools, and the form of the text: with schemas as `written` has them. */
function formedBy(body: ResponsesBody, written: Exact): Record<string, unknown> {
  const tools = (written.tools ?? []) as readonly Record<string, unknown>[]
  const format = (written.text as ResponsesBody["text"])?.format
  const allowed = allowedOf(body)
  const chosen = tools.filter(({ name }) => allowed === null || allowed.includes(name as string))
  return {
    ...(chosen.length > 0 && { tools: chosen.map(chatTool), ...choiceOf(body) }),
    ...(chosen.length === 0 && isForcing(body) && choiceOf(body)),
    ...(format && { response_format: chatFormat(format) }),
  }
}

function isForcing({ tool_choice: choice }: ResponsesBody): boolean {
  return choice === "required" || (typeof choice === "object" && choice !== null)
}

/** Tools that a choice leaves; null: all. */
function allowedOf({ tool_choice: choice, tools }: ResponsesBody): string[] | null {
  if (typeof choice !== "object" || choice?.type !== "allowed_tools") return null
  const names = choice.tools.map(({ name }) => name)
  const known = new Set(tools?.map(({ name }) => name))
  const index = names.findIndex((name) => !known.has(name))
  if (index < 0) return names
  const name = JSON.stringify(names[index]!.slice(0, 100))
  throw wrong(`tool_choice.tools[${index}].name`, `there is no tool named ${name}`)
}

function choiceOf({ tool_choice: choice }: ResponsesBody): Record<string, unknown> {
  if (choice === null || choice === undefined) return {}
  if (typeof choice === "string") return { tool_choice: choice }
  if (choice.type === "allowed_tools") return { tool_choice: choice.mode }
  return { tool_choice: { type: "function", function: { name: choice.name } } }
}

function chatTool({ type: _, ...about }: Record<string, unknown>): object {
  return { type: "function", function: defined(about) }
}

function chatFormat(format: NonNullable<NonNullable<ResponsesBody["text"]>["format"]>): object {
  if (format.type !== "json_schema") return { type: format.type }
  const { type, ...about } = format
  return { type, json_schema: about }
}

function wrong(param: string, why: string): UserError {
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
