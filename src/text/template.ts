/** Messages to prompt text, by the model's own Jinja chat template (ChatML when it has none). */
import { Template } from "@huggingface/jinja"
import { CHATML_TEMPLATE } from "../engine/chatml.ts"
import type { ControlTokens, Special } from "../engine/control-tokens.ts"
import type { ModelInfo } from "../engine/port.ts"
import { UserError, userError } from "../errors.ts"
import type { ChatMessage, ChatPrompt } from "./chat.ts"
import { concernsAny, type Disguise, Disguises, disguiseAll } from "./disguise.ts"
import { ToolPrompt } from "./tools/prompt.ts"
import { inTurns } from "./turns.ts"

export type { ChatMessage, ChatPrompt }

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
  readonly #tools: ToolPrompt

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
    this.#tools = new ToolPrompt(model.chatTemplate, (prompt) => this.#filled({ ...prompt, variables: {} }))
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
      // After the disguise: the marks of calls that are written here are not the user's.
      return this.#adapted(given)
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

  /** Where the template wants the system first and turns that alternate, the conversation in such turns. */
  #adapted(given: ChatPrompt): string {
    try {
      return this.#filled(this.#tools.adapt(given))
    } catch (refusal) {
      const messages = inTurns(given.messages)
      if (messages.length === given.messages.length) throw refusal
      try {
        return this.#filled(this.#tools.adapt({ ...given, messages }))
      } catch {
        throw refusal
      }
    }
  }

  #filled({ messages, tools, variables, goesOn = false }: ChatPrompt): string {
    const text = this.#template.render({
      ...variables,
      messages: goesOn ? withEnd(messages) : messages,
      ...(tools === null ? {} : { tools }),
      add_generation_prompt: !goesOn,
      bos_token: this.#model.bosText,
      eos_token: this.#model.eosText,
    })
    if (!goesOn) return text
    const end = text.lastIndexOf(HERE)
    if (end < 0) throw new Error("it does not show the last message, which the answer would go on with.")
    return text.slice(0, end)
  }
}

/** Stands behind the last message where the answer goes on with it: what the template writes after it is cut off. */
const HERE = "\uE000"

function withEnd(messages: readonly ChatMessage[]): ChatMessage[] {
  const last = messages.at(-1)!
  return [...messages.slice(0, -1), { ...last, content: `${last.content ?? ""}${HERE}` }]
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
