/** A client's body in words that engines take. This server reads more than they do (empty lists, nulls, other names of the same
 * field): an engine refuses the request for it, or does not know the field and answers as if it had not been sent. */
import type { Api, BackendKind } from "./kind.ts"

type Body = Record<string, unknown>

/** OpenAI's default for completions, which engines have as well. */
const USUAL_COMPLETION_TOKENS = 16

/** Changes `body`, which is the caller's own; what is in it is left as it is. `contextTokens`: null where it is not known. */
export function reword(body: Body, kind: BackendKind, api: Api, contextTokens: number | null): void {
  lengths(body, api, contextTokens)
  sampling(body, kind)
  tools(body, kind)
  if (typeof body.reasoning === "boolean" && kind.takesTemplateVariables) {
    body.chat_template_kwargs = { ...(body.chat_template_kwargs as object), enable_thinking: body.reasoning }
    delete body.reasoning
  }
  // Else a template would close the message and open another.
  if (body.continue_final_message === true) Object.assign(body, kind.goOn)
  if (Array.isArray(body.messages)) body.messages = messagesOf(body.messages)
}

function lengths(body: Body, api: Api, contextTokens: number | null): void {
  const { min_tokens: least, truncate_prompt_tokens: last } = body
  // What is shorter than asked for by its most ends there, without complaint.
  if (api === "completions" && typeof least === "number") {
    const most = Number(body.max_tokens ?? USUAL_COMPLETION_TOKENS)
    if (most > 0) body.min_tokens = Math.min(least, most)
  }
  // A prompt of which so much counts is refused or whole.
  if (typeof last === "number" && contextTokens !== null && last > contextTokens)
    delete body.truncate_prompt_tokens
}

function sampling(body: Body, kind: BackendKind): void {
  if (body.stop !== undefined) {
    const stops = [body.stop].flat().filter((text) => text !== "")
    if (stops.length === 0) delete body.stop
    else if (Array.isArray(body.stop)) body.stop = stops
  }
  // Both mean that it is off; not every engine knows 0 for that.
  if (body.top_k === 0) body.top_k = -1
  const { repeat_penalty, repetition_penalty } = body
  const penalty = repeat_penalty ?? repetition_penalty
  if (penalty === undefined || kind.repeatPenalty === null) return
  delete body.repeat_penalty
  delete body.repetition_penalty
  body[kind.repeatPenalty] = penalty
}

interface AllowedTools {
  type?: unknown
  allowed_tools?: { mode: unknown; tools: { function: { name: string } }[] }
}

function tools(body: Body, kind: BackendKind): void {
  const all = body.tools
  if (!Array.isArray(all) || all.length === 0) {
    for (const field of ["tools", "tool_choice", "parallel_tool_calls"]) delete body[field]
    return
  }
  const { type, allowed_tools: allowed } = (body.tool_choice ?? {}) as AllowedTools
  if (type !== "allowed_tools" || allowed === undefined || kind.name === "openai") return
  const names = new Set(allowed.tools.map((tool) => tool.function.name))
  body.tools = all.filter((tool: { function: { name: string } }) => names.has(tool.function.name))
  body.tool_choice = allowed.mode
}

interface Call {
  id?: string | null
  type?: string | null
  function: { name: string; arguments?: unknown }
}

function messagesOf(messages: readonly Body[]): Body[] {
  let calls = 0
  const callOf = ({ id, type: _, function: { name, arguments: given }, ...rest }: Call): Call => ({
    ...rest,
    ...{ id: id ?? `call_${calls++}`, type: "function" },
    function: { name, arguments: typeof given === "string" ? given : JSON.stringify(given ?? {}) },
  })
  return messages.map((message) => {
    const isPlain = !("tool_calls" in message) && Object.values(message).every((value) => value !== null)
    if (isPlain) return message
    const { tool_calls: called, content, ...rest } = message
    const told = Object.entries(rest).filter(([, value]) => value !== null)
    return {
      ...Object.fromEntries(told),
      // An assistant that only calls says nothing; others say something, if only nothing.
      ...(content !== undefined && { content: message.role === "assistant" ? content : (content ?? "") }),
      ...(Array.isArray(called) && called.length > 0 && { tool_calls: called.map(callOf) }),
    }
  })
}
