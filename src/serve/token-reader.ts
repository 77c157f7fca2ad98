/** Texts and messages as the tokens that the model would read, without an answer to them. */
import type { Engine } from "../engine/port.ts"
import type { Prompt } from "../replica/generation.ts"
import { promptTooLong } from "./lengths.ts"
import { type ParseSpecial, type PromptReader, parsesSpecial } from "./prompt-reader.ts"

export interface TokensAsked {
  prompt: Prompt
  /** The request's word; null: the server's. */
  parseSpecial: boolean | null
  /** The model's beginning is set before it. */
  addBos: boolean
  /** Number of the tenant that asks. */
  tenant: number
  /** Aborted when the client goes away. */
  signal: AbortSignal
}

export class TokenReader {
  readonly #engine: Engine
  readonly #reader: PromptReader
  readonly #parseSpecial: ParseSpecial

  constructor(engine: Engine, reader: PromptReader, parseSpecial: ParseSpecial) {
    this.#engine = engine
    this.#reader = reader
    this.#parseSpecial = parseSpecial
  }

  /** null: aborted before. Throws UserError for what cannot be read. */
  async read({ parseSpecial, ...asked }: TokensAsked): Promise<Int32Array | null> {
    const { contextTokens } = this.#engine.limits
    const read = await this.#reader.read(asked.prompt, {
      ...asked,
      parseSpecial: parsesSpecial(parseSpecial, this.#parseSpecial),
      tooLong: (least) => promptTooLong(contextTokens, least, 0, "at least "),
    })
    return read?.tokens ?? null
  }

  /** Whether the model knows the token. */
  has(token: number): boolean {
    return Number.isInteger(token) && token >= 0 && token < this.#engine.model.vocabSize
  }

  /** A control token is text as it is spelt. */
  spelling(token: number): { bytes: Uint8Array; control?: string } {
    const bytes = this.#engine.tokenizer.bytes(token)
    const control = bytes.length > 0 ? undefined : this.#engine.tokenizer.controls.textOf(token)
    return control === undefined ? { bytes } : { bytes, control }
  }
}
