/** Messages to prompt text, by the model's own Jinja chat template (ChatML when it has none). */
import { Template } from "@huggingface/jinja"
import { CHATML_TEMPLATE } from "../engine/chatml.ts"
import type { ControlTokens, Special } from "../engine/control-tokens.ts"
import type { ModelInfo } from "../engine/port.ts"
import { UserError, userError } from "../errors.ts"
import { concernsAny, type Disguise, Disguises, disguiseAll } from "./disguise.ts"

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

/** A prompt, ready to be encoded. */
export interface PromptText {
  text: string
  /** Which control tokens that it spells are meant. */
  special: Special
  /** It ends in `<think>`: the answer begins with thoughts. */
  opensThinking: boolean
}

export type TemplateSource = Pick<ModelInfo, "chatTemplate" | "bosText" | "eosText">

export class ChatTemplate {
  readonly #template: Template
  readonly #disguises: Disguises
  readonly #controls: ControlTokens
  readonly #model: TemplateSource

  /** Throws when the model's template cannot be read. */
  constructor(model: TemplateSource, controls: ControlTokens) {
    const source = model.chatTemplate ?? CHATML_TEMPLATE
    try {
      this.#template = new Template(source)
      this.#disguises = new Disguises(controls, source)
    } catch (cause) {
      throw new UserError(
        `the model's chat template cannot be read (${(cause as Error).message}); use another file of this model`,
        { code: "bad_chat_template", cause },
      )
    }
    this.#model = model
    this.#controls = controls
  }

  /** The prompt, ready for the assistant's turn. Control tokens are the template's own; with `parseSpecial` also those
   * that the messages spell. A message list that the template refuses is a 400. */
  render(prompt: ChatPrompt, parseSpecial: boolean): PromptText {
    const given = { ...prompt, messages: prompt.messages.map(prepared) }
    const text = this.#run(given)
    const shown = parseSpecial ? text : this.#disguised(given, text)
    return {
      text,
      special: shown === text ? true : this.#controls.find(shown),
      opensThinking: /<think>\s*$/.test(shown.slice(-64)),
    }
  }

  /** The rendering in which the user's texts spell no control token. */
  #disguised(given: ChatPrompt, text: string): string {
    const { thorough, slight } = this.#disguises
    if (!concernsAny(given, this.#disguises)) return text
    for (const disguise of [thorough, slight]) {
      const shown = this.#run(disguiseAll(given, disguise), disguise)
      if (shown !== null && this.#disguises.fits(text, shown)) return shown
    }
    const detail =
      "they spell a control token of the model, which it looks for itself; leave it out, or set 'parse_special'"
    throw userError("chat_template_error", { detail: `${detail}.` }, { param: "messages" })
  }

  #run(given: ChatPrompt): string
  #run(given: ChatPrompt, disguise: Disguise): string | null
  #run(given: ChatPrompt, disguise?: Disguise): string | null {
    try {
      return this.#template.render({
        ...given.variables,
        messages: given.messages,
        ...(given.tools === null ? {} : { tools: given.tools }),
        add_generation_prompt: true,
        bos_token: this.#model.bosText,
        eos_token: this.#model.eosText,
      })
    } catch (error) {
      // What the template refuses is what it was given, not what it is shown to see what is whose.
      if (disguise !== undefined) return null
      const detail = error instanceof Error ? error.message : String(error)
      throw userError(
        "chat_template_error",
        { detail: detail.slice(0, 1000) },
        { param: "messages", cause: error },
      )
    }
  }
}

/** What templates expect where it differs from OpenAI's wire format. */
function prepared(message: ChatMessage): ChatMessage {
  const { role, tool_calls, ...rest } = message
  return {
    ...rest,
    role: role === "developer" ? "system" : role,
    content: message.content ?? "",
    ...(tool_calls === undefined ? {} : { tool_calls: tool_calls.map(withParsedArguments) }),
  }
}

/** Deeper arguments stay text, as what is no JSON does: templates, and what looks for control tokens, go through them by
 * recursion and would run out of stack. A body itself is bounded as deep. */
const MOST_DEPTH = 160

/** Arguments travel as JSON text; templates write objects. */
function withParsedArguments(
  call: NonNullable<ChatMessage["tool_calls"]>[number],
): NonNullable<ChatMessage["tool_calls"]>[number] {
  const { arguments: given } = call.function
  if (typeof given !== "string") return call
  try {
    const parsed: unknown = JSON.parse(given)
    return isWithin(parsed, MOST_DEPTH)
      ? { ...call, function: { ...call.function, arguments: parsed } }
      : call
  } catch {
    return call
  }
}

/** It has at most so many levels of arrays and objects. */
function isWithin(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return true
  return levels > 0 && Object.values(value).every((one) => isWithin(one, levels - 1))
}
