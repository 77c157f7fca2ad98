/** From a prompt to its tokens: template and tokenizer, short prompts at once and long ones on other threads, each kind
 * in a lane of its own, so that no flood of long ones holds up the short. */
import { setImmediate } from "node:timers/promises"
import type { Engine } from "../engine/port.ts"
import { UserError, userError } from "../errors.ts"
import type { Prompt } from "../replica/generation.ts"
import { Renderer } from "../text/renderer.ts"
import { ChatTemplate, type PromptText } from "../text/template.ts"
import { Lane } from "./lane.ts"
import { SharedBound } from "./shared-bound.ts"

export interface PromptTokens {
  tokens: Int32Array
  /** The answer begins with thoughts. */
  opensThinking: boolean
}

/** Whether texts may spell control tokens: "asked": where the request says so. */
export type ParseSpecial = "never" | "asked" | "always"

export interface ReadOptions {
  /** Number of the tenant that it is of. */
  tenant?: number
  parseSpecial: boolean
  /** The model's beginning is set before it. Default: it is. */
  addBos?: boolean
  /** Aborted when nothing waits for the tokens any more. */
  signal: AbortSignal
  /** The error of a prompt that has at least so many tokens. */
  tooLong: (leastTokens: number) => UserError
}

/** By number: of 1, and against others' 1. */
export interface TenantShares {
  shareOf?: (tenant: number) => number
  weightOf?: (tenant: number) => number
}

/** A few milliseconds at most, template and tokens. */
const SHORT_CHARACTERS = 4_000
/** Some tens of milliseconds. */
const MEDIUM_CHARACTERS = 64_000
/** What a message, a field or an entry costs a template, in characters. */
const VALUE_CHARACTERS = 40
/** Most characters that wait in a lane, and as many more for tenants below their share of them. */
const MOST_WAITING = 64_000_000
/** A text of more characters a token of the context is tried first on as many. */
const TRIED_CHARACTERS_PER_TOKEN = 16

export class PromptReader {
  readonly #engine: Engine
  readonly #template: ChatTemplate
  readonly #lanes: readonly { upTo: number; lane: Lane; renderer: Renderer | null }[]

  constructor(engine: Engine, { shareOf, weightOf }: TenantShares = {}) {
    const { model, tokenizer } = engine
    this.#engine = engine
    this.#template = new ChatTemplate(model, tokenizer.controls)
    const lane = (upTo: number, threaded: boolean) => ({
      upTo,
      lane: new Lane({
        waiting: new SharedBound(MOST_WAITING, MOST_WAITING, shareOf),
        ...(weightOf !== undefined && { weightOf }),
        ...(!threaded && { pause: () => setImmediate() }),
      }),
      renderer: threaded ? new Renderer(model, tokenizer.controls) : null,
    })
    this.#lanes = [lane(SHORT_CHARACTERS, false), lane(MEDIUM_CHARACTERS, true), lane(Infinity, true)]
  }

  /** The prompt's tokens; null when it was aborted before its turn. Throws UserError for one that cannot be read. */
  async read(prompt: Prompt, options: ReadOptions): Promise<PromptTokens | null> {
    if (prompt.kind === "tokens") return { tokens: this.#checked(prompt.tokens), opensThinking: false }
    const size = prompt.kind === "text" ? prompt.text.length : sizeOf(prompt)
    const { lane, renderer } = this.#lanes.find(({ upTo }) => size <= upTo)!
    const work = async () => {
      const text = await this.#text(prompt, options.parseSpecial, renderer)
      return { tokens: await this.#encode(text, options), opensThinking: text.opensThinking }
    }
    const { signal, tenant = 0 } = options
    const read = await lane.run({ size, tenant, signal, work })
    if (read === "full") throw userError("too_many_long_prompts")
    return read
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map(({ renderer }) => renderer?.close()))
  }

  async #text(
    prompt: Exclude<Prompt, { kind: "tokens" }>,
    parseSpecial: boolean,
    renderer: Renderer | null,
  ): Promise<PromptText> {
    if (prompt.kind === "text") return { text: prompt.text, special: parseSpecial, opensThinking: false }
    const { kind: _, ...chat } = prompt
    return (renderer ?? this.#template).render(chat, parseSpecial)
  }

  async #encode(
    { text, special }: PromptText,
    { tooLong, addBos: wanted = true }: ReadOptions,
  ): Promise<Int32Array> {
    const { model, tokenizer, limits } = this.#engine
    // What cannot fit must not take the tokenizer seconds.
    const least = Math.ceil(Buffer.byteLength(text) / tokenizer.longestTokenBytes)
    if (least > limits.contextTokens) throw tooLong(least)
    const tried = TRIED_CHARACTERS_PER_TOKEN * limits.contextTokens
    if (text.length > tried) {
      const some = await tokenizer.encode(text.slice(0, tried), { special: false, addBos: false })
      // Twice as many as fit: where the text is cut makes no such difference.
      if (some.length > 2 * limits.contextTokens) throw tooLong(Math.floor(some.length / 2))
    }
    const begins = special === true || (Array.isArray(special) && special[0] === 0)
    const addBos = wanted && model.bosText !== "" && !(begins && text.startsWith(model.bosText))
    const tokens = await tokenizer.encode(text, { special, addBos })
    if (tokens.length > 0) return tokens
    throw emptyPrompt()
  }

  #checked(tokens: readonly number[]): Int32Array {
    const wrong = tokens.findIndex((token) => token < 0 || token >= this.#engine.model.vocabSize)
    if (wrong < 0 && tokens.length > 0) return Int32Array.from(tokens)
    if (wrong < 0) throw emptyPrompt()
    throw new UserError(
      `Invalid 'prompt': token ${tokens[wrong]} at index ${wrong} is not in the model's vocabulary of ` +
        `${this.#engine.model.vocabSize}.`,
      { code: "invalid_value", param: "prompt" },
    )
  }
}

/** Whether the texts of a request may spell control tokens: its own word, within the server's. Throws a 400. */
export function parsesSpecial(asked: boolean | null, server: ParseSpecial): boolean {
  if (asked && server === "never")
    throw new UserError(
      "Invalid 'parse_special': this server reads all texts as text (--parse-special never). Leave it out.",
      { code: "invalid_value", param: "parse_special" },
    )
  return asked ?? server === "always"
}

function emptyPrompt(): UserError {
  return new UserError("Invalid 'prompt': it must not be empty.", { code: "invalid_value", param: "prompt" })
}

/** About how much work a template has with a value, in characters. */
export function sizeOf(value: unknown): number {
  if (typeof value === "string") return value.length + VALUE_CHARACTERS
  if (typeof value !== "object" || value === null) return VALUE_CHARACTERS
  return Object.values(value).reduce<number>((sum, one) => sum + sizeOf(one), VALUE_CHARACTERS)
}
