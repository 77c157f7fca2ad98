/** A request of the Messages API as the chat that it asks for: one path leads on from there. */
import { UserError } from "../../errors.ts"
import { validate } from "../body.ts"
import type { Exact } from "../chat-generation.ts"
import { type ChatBody, chatSchema } from "../schemas.ts"
import { withoutCleared } from "./context-edits.ts"
import type { AnthropicMessage, CountBody, MessagesBody } from "./schema.ts"

/** What chats call a field, and what the Messages API calls it. */
export const MESSAGES_FIELDS: Readonly<Record<string, string>> = {
  response_format: "output_config.format",
  stop: "stop_sequences",
}

export interface ChatOf {
  body: ChatBody
  /** Schemas in it as they were written. */
  exact: Exact
  /** As other servers are asked for it. */
  wire: Exact
}

/** `exact`: the body as it was written. */
export function chatOf(body: MessagesBody, exact: Exact): ChatOf {
  const tier = body.service_tier
  const wire = {
    ...sharedFields(body),
    ...promptFields(body),
    ...defined({
      max_tokens: body.max_tokens,
      stop: body.stop_sequences,
      service_tier: tier === "standard_only" ? "default" : tier,
      ...formedBy(body, body),
    }),
  }
  return {
    wire,
    body: validate(chatSchema, wire),
    exact: { ...wire, ...formedBy(body, exact), seed: exact.seed },
  }
}

/** The chat of which all is there but what is asked of the answer. */
export function countedChat(body: CountBody): ChatBody {
  const { model, parse_special } = body
  return validate(
    chatSchema,
    defined({ model, parse_special, ...promptFields(body), ...toolsOf(body, body) }),
  )
}

/** Fields that chats have as well, under the same names. */
function sharedFields(body: MessagesBody): Record<string, unknown> {
  const shared = Object.entries(body).filter(
    ([name]) => Object.hasOwn(chatSchema.shape, name) && !OWN.has(name),
  )
  return defined(Object.fromEntries(shared))
}

/** Those that mean something else there. */
const OWN = new Set(["messages", "tools", "tool_choice", "service_tier"])

function defined(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  )
}

function promptFields(body: CountBody): Record<string, unknown> {
  const system = body.system ? plainText(body.system) : ""
  const said = withoutCleared(body.messages, body.context_management).flatMap(messagesOf)
  const { thinking, output_config, chat_template_kwargs: given } = body
  const think = thinking ? { enable_thinking: thinking.type !== "disabled" } : null
  return {
    messages: system === "" ? said : [{ role: "system", content: system }, ...said],
    ...((think ?? given) && { chat_template_kwargs: { ...think, ...given } }),
    ...(output_config?.effort && { reasoning_effort: output_config.effort }),
    ...(goesOn(body) && { continue_final_message: true, add_generation_prompt: false }),
  }
}

/** An answer goes on with a last message of the assistant. */
function goesOn({ messages }: CountBody): boolean {
  const index = messages.length - 1
  const last = messages[index]!
  if (last.role !== "assistant") return false
  if (typeof last.content === "string" || last.content.at(-1)!.type === "text") return true
  throw wrong(
    `messages[${index}]`,
    "the last message may be the assistant's only where it ends with text, with which the answer goes on",
  )
}

function messagesOf(message: AnthropicMessage): object[] {
  const { role, content } = message
  if (typeof content === "string") return [{ role, content }]
  if (role === "assistant") return [assistantMessage(content as AssistantBlocks)]
  const results = (content as UserBlocks).flatMap((block) => {
    if (block.type !== "tool_result") return []
    const told = plainText(block.content ?? "")
    return [
      { role: "tool", tool_call_id: block.tool_use_id, content: block.is_error ? `Error: ${told}` : told },
    ]
  })
  const texts = (content as UserBlocks).filter((block) => block.type === "text")
  // Results come first: templates want them right after their calls.
  return texts.length === 0 && results.length > 0
    ? results
    : [...results, { role, content: plainText(texts) }]
}

type BlocksOf<R> = Exclude<Extract<AnthropicMessage, { role: R }>["content"], string>
type UserBlocks = BlocksOf<"user">
type AssistantBlocks = BlocksOf<"assistant">

function assistantMessage(blocks: AssistantBlocks): object {
  const thoughts = blocks.flatMap((block) => (block.type === "thinking" ? block.thinking : []))
  const calls = blocks.flatMap((block) => (block.type === "tool_use" ? block : []))
  const text = blocks.flatMap((block) => (block.type === "text" ? block.text : [])).join("")
  return {
    role: "assistant",
    content: text === "" && calls.length > 0 ? null : text,
    ...(thoughts.length > 0 && { reasoning_content: thoughts.join("") }),
    ...(calls.length > 0 && {
      tool_calls: calls.map(({ id, name, input }) => ({
        ...{ id, type: "function" },
        function: { name, arguments: JSON.stringify(input) },
      })),
    }),
  }
}

function plainText(content: string | readonly { text: string }[]): string {
  return typeof content === "string" ? content : content.map(({ text }) => text).join("")
}

/** Tools, and the form of the text: with schemas as `written` has them. */
function formedBy(body: MessagesBody, written: Exact): Record<string, unknown> {
  const { output_config: config, output_format: older } = written as Partial<MessagesBody>
  const format = config?.format ?? older
  return {
    ...toolsOf(body, written),
    ...(format && {
      response_format: { type: "json_schema", json_schema: { name: "output", schema: format.schema } },
    }),
  }
}

function toolsOf({ tool_choice: choice }: CountBody, written: Exact): Record<string, unknown> {
  const tools = (written.tools ?? []) as NonNullable<CountBody["tools"]>
  return {
    ...(tools.length > 0 && { tools: tools.map(chatTool) }),
    ...(choice && { tool_choice: choiceOf(choice) }),
    ...(choice &&
      choice.type !== "none" &&
      choice.disable_parallel_tool_use && { parallel_tool_calls: false }),
  }
}

function chatTool({
  name,
  description,
  input_schema: parameters,
  strict,
}: NonNullable<CountBody["tools"]>[number]): object {
  return { type: "function", function: { ...defined({ name, description, strict }), parameters } }
}

function choiceOf(choice: NonNullable<CountBody["tool_choice"]>): unknown {
  if (choice.type === "tool") return { type: "function", function: { name: choice.name } }
  return choice.type === "any" ? "required" : choice.type
}

function wrong(param: string, why: string): UserError {
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
