/** Messages to prompt text, by the model's own Jinja chat template (ChatML when it has none). */
import { Template } from "@huggingface/jinja"
import { CHATML_TEMPLATE } from "../engine/chatml.ts"
import type { ModelInfo } from "../engine/port.ts"
import { UserError, userError } from "../errors.ts"

/** A chat message in OpenAI's shape; content parts are flattened before. */
export interface ChatMessage {
  role: string
  content: string | null
  name?: string
  reasoning_content?: string
  tool_calls?: { id?: string; type?: string; function: { name: string; arguments: unknown } }[]
  tool_call_id?: string
}

export interface ChatPrompt {
  messages: readonly ChatMessage[]
  tools: readonly unknown[] | null
  /** Template variables of the request (`chat_template_kwargs`). */
  variables: Readonly<Record<string, unknown>>
}

export class ChatTemplate {
  readonly #template: Template
  readonly #model: Pick<ModelInfo, "bosText" | "eosText">

  /** Throws when the model's template cannot be read. */
  constructor(model: Pick<ModelInfo, "chatTemplate" | "bosText" | "eosText">) {
    try {
      this.#template = new Template(model.chatTemplate ?? CHATML_TEMPLATE)
    } catch (cause) {
      throw new UserError(
        `the model's chat template cannot be read (${(cause as Error).message}); use another file of this model`,
        { code: "bad_chat_template", cause },
      )
    }
    this.#model = model
  }

  /** The prompt, ready for the assistant's turn. A message list that the template refuses is a 400. */
  render(prompt: ChatPrompt): string {
    const messages = prompt.messages.map((message) => this.#prepare(message))
    try {
      return this.#template.render({
        ...prompt.variables,
        messages,
        ...(prompt.tools === null ? {} : { tools: prompt.tools }),
        add_generation_prompt: true,
        bos_token: this.#model.bosText,
        eos_token: this.#model.eosText,
      })
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      throw userError("chat_template_error", { detail }, { param: "messages", cause: error })
    }
  }

  /** What templates expect where it differs from OpenAI's wire format. */
  #prepare(message: ChatMessage): Record<string, unknown> {
    const { role, tool_calls, ...rest } = message
    return {
      ...rest,
      role: role === "developer" ? "system" : role,
      content: message.content ?? "",
      ...(tool_calls === undefined ? {} : { tool_calls: tool_calls.map(withParsedArguments) }),
    }
  }
}

/** Arguments travel as JSON text; templates write objects. */
function withParsedArguments(call: NonNullable<ChatMessage["tool_calls"]>[number]): unknown {
  const { arguments: given } = call.function
  if (typeof given !== "string") return call
  try {
    return { ...call, function: { ...call.function, arguments: JSON.parse(given) as unknown } }
  } catch {
    return call
  }
}
