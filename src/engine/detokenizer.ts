/** Tokens to text as they come: a UTF-8 character split over tokens is held back until it is whole. */
import type { Tokenizer } from "./port.ts"

export class Detokenizer {
  readonly #tokenizer: Pick<Tokenizer, "bytes">
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true })

  constructor(tokenizer: Pick<Tokenizer, "bytes">) {
    this.#tokenizer = tokenizer
  }

  /** Text that is now complete; "" while inside a character. Invalid bytes become U+FFFD. */
  push(token: number): string {
    return this.#decoder.decode(this.#tokenizer.bytes(token), { stream: true })
  }

  /** What is left at the end: "" or U+FFFD for an unfinished character. Ready for a new text after. */
  flush(): string {
    return this.#decoder.decode()
  }
}
