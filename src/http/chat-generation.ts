/** From the body of a chat to what is generated for it. Bodies of the other APIs for conversations are made into one of
 * these first, so that all of them mean the same. */
import type { FastifyRequest } from "fastify"
import { UserError } from "../errors.ts"
import type { Generation } from "../replica/generation.ts"
import type { Service } from "../serve/service.ts"
import { readClientSloArgs } from "../serve/slo-args.ts"
import { resolveSlo } from "../serve/slo-resolve.ts"
import {
  callingGrammar,
  type OutputFormat,
  outputGrammar,
  type TextFormat,
} from "../text/constraint/grammar.ts"
import { textFormat } from "../text/constraint/text-format.ts"
import type { ChatMessage } from "../text/template.ts"
import { formatOf } from "../text/tools/formats.ts"
import { type Tool, toolOf } from "../text/tools/parts.ts"
import { classOfModel } from "./model-names.ts"
import { longest, promptAndStops, samplingOf } from "./sampling.ts"
import type { ChatBody } from "./schemas.ts"

/** A body as it was written (body.ts). */
export type Exact = Readonly<Record<string, unknown>>

export interface ChatAsk {
  generation: Generation
  /** The field that holds the answer to a grammar; null: none does. */
  formedBy: string | null
}

/** Throws UserError for what cannot be asked. */
export function chatAsk(service: Service, request: FastifyRequest, body: ChatBody, exact: Exact): ChatAsk {
  const text = textFormat(body, exact)
  return {
    generation: chatGeneration(service, request, body, { exact, text }),
    formedBy: isForced(body) ? "tools" : (text?.param ?? null),
  }
}

function chatGeneration(
  service: Service,
  request: FastifyRequest,
  body: ChatBody,
  { exact, text }: { exact: Exact; text: TextFormat | null },
): Generation {
  const modelClass = classOfModel(service, body.model)
  const tools = body.tools && body.tools.length > 0 && body.tool_choice !== "none" ? body.tools : null
  const { reasoning_effort: effort } = body
  const variables: Readonly<Record<string, unknown>> = {
    ...(effort && { reasoning_effort: effort }),
    ...body.chat_template_kwargs,
  }
  const wanted = body.reasoning ?? variables.enable_thinking ?? (effort === "none" ? false : null)
  const args = readClientSloArgs(body.vllm_xargs)
  const single = body.parallel_tool_calls === false || isNamed(body)
  const callable = calledTools(exact, toolChoice(body))
  if (body.top_logprobs && !body.logprobs)
    throw new UserError("Invalid 'top_logprobs': it needs 'logprobs' to be true.", {
      code: "invalid_value",
      param: "top_logprobs",
    })
  return {
    prompt: {
      kind: "chat",
      messages: body.messages.map(plainMessage),
      ...{ tools, variables },
      ...(goesOn(body) && { goesOn: true }),
    },
    tenant: request.tenant,
    ...longest(body.max_completion_tokens ?? body.max_tokens ?? null),
    sampling: samplingOf(body, exact, {
      logprobs: body.logprobs ? (body.top_logprobs ?? 0) + 1 : 0,
      grammar: grammarOf(service, body, { exact, text, single, callable }),
      vocabSize: service.front.model.vocabSize,
    }),
    parseSpecial: body.parse_special ?? null,
    ...promptAndStops(body),
    singleCall: single,
    jsonIsText: text !== null && !isForced(body),
    ...(callable.length < (tools?.length ?? 0) && { callable: callable.map(({ name }) => name) }),
    slo: resolveSlo(service.classes, {
      slo: body.slo,
      args,
      serviceTier: body.service_tier,
      headers: request.headers,
      modelClass,
    }),
    session: body.slo?.session ?? args.slo_session ?? null,
    reasoning: typeof wanted === "boolean" ? wanted : null,
    thinkingTokens: body.slo?.thinking_tokens ?? null,
  }
}

/** Whether the answer goes on with the last message, as vLLM's clients ask for it. */
function goesOn({
  continue_final_message: asked,
  add_generation_prompt: opens,
  messages,
}: ChatBody): boolean {
  const wrong = (param: string, why: string) =>
    new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
  if (!asked) {
    if (opens === false)
      throw wrong("add_generation_prompt", "false is supported with 'continue_final_message': true only")
    return false
  }
  if (opens === true)
    throw wrong("add_generation_prompt", "an answer that goes on with the last message begins no other one")
  if (messages.at(-1)!.role !== "assistant")
    throw wrong("continue_final_message", "the last message is not the assistant's")
  return true
}

interface Formed {
  exact: Exact
  text: TextFormat | null
  single: boolean
  /** Tools that may be called. */
  callable: readonly Tool[]
}

/** A format of text is no format of calls: the model may still call the tools it was given. */
function grammarOf(service: Service, body: ChatBody, formed: Formed): string | null {
  const { mode } = toolChoice(body)
  const { model } = service.front
  const way = formatOf(model.chatTemplate)
  const forced = mode === "required"
  const text = forced ? null : formed.text
  const may = forced || (text !== null && mode === "auto")
  const output: OutputFormat = { text, calls: may ? formed.callable : [], parallel: !formed.single }
  if (text !== null || mode !== "auto" || formed.callable.length === 0) return outputGrammar(output, way)
  // Engines of other kinds hold calls in their own ways, or do not.
  return service.front.tokenBytes(0) === null ? null : callingGrammar(formed.callable, way)
}

/** How tools are to be called; `names`: only these, null: any. */
interface ToolChoice {
  mode: "auto" | "none" | "required"
  names: readonly string[] | null
}

function toolChoice({ tool_choice: choice }: ChatBody): ToolChoice {
  if (choice === null || choice === undefined) return { mode: "auto", names: null }
  if (typeof choice === "string") return { mode: choice, names: null }
  if (choice.type === "function") return { mode: "required", names: [choice.function.name] }
  const { mode, tools } = choice.allowed_tools
  return { mode, names: tools.map((tool) => tool.function.name) }
}

function isForced(body: ChatBody): boolean {
  return toolChoice(body).mode === "required"
}

/** One tool must be called. */
function isNamed({ tool_choice: choice }: ChatBody): boolean {
  return typeof choice === "object" && choice !== null && choice.type === "function"
}

/** The tools that a choice leaves to be called. */
function calledTools(exact: Exact, { mode, names }: ToolChoice): Tool[] {
  const tools = ((exact.tools ?? []) as unknown[]).map(toolOf)
  const wrong = (why: string) =>
    new UserError(`Invalid 'tool_choice': ${why}.`, { code: "invalid_value", param: "tool_choice" })
  if (tools.length === 0 && (mode === "required" || names !== null)) throw wrong("there are no tools to call")
  const unknown = names?.find((name) => !tools.some((tool) => tool.name === name))
  if (unknown !== undefined) throw wrong(`there is no tool named ${JSON.stringify(unknown.slice(0, 100))}`)
  return names === null ? tools : tools.filter((tool) => names.includes(tool.name))
}

/** Content parts become one text; nulls disappear. */
export function plainMessage(message: ChatBody["messages"][number]): ChatMessage {
  const { role, content, name, tool_call_id, tool_calls } = message
  const thoughts = message.reasoning_content || message.reasoning
  const text = Array.isArray(content) ? content.map((part) => part.text).join("") : (content ?? null)
  return {
    role,
    content: text,
    ...(name ? { name } : {}),
    ...(thoughts ? { reasoning_content: thoughts } : {}),
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
