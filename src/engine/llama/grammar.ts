/** Sampling under a grammar. Checking a whole vocabulary against a grammar costs milliseconds, a single token
 * nothing: so the token is drawn freely, and only if the grammar refuses it, drawn again from what is allowed. */
import { UserError } from "../../errors.ts"
import { argmax } from "./logits.ts"
import { allocate, int32At, type Native, type Pointer } from "./native.ts"

/** llama_token_data: id, logit, p. */
const ENTRY_BYTES = 12
/** llama_token_data_array: data, size, selected, sorted. */
const ARRAY_BYTES = 32

/** The grammar of one request; free it with `freeSampler`. */
export function parseGrammar(native: Native, vocab: Pointer, text: string): Pointer {
  const grammar = native.grammar(vocab, text, "root")
  if (grammar) return grammar
  throw new UserError("the grammar is not valid GBNF, or has no rule named root", {
    code: "invalid_grammar",
    param: "grammar",
  })
}

/** Draws tokens under grammars, one after the other: the candidates' memory is shared. */
export class GrammarSampling {
  readonly #native: Native
  readonly #entries: ReturnType<typeof allocate>
  readonly #array: ReturnType<typeof allocate>
  readonly #ids: Int32Array
  readonly #logits: Float32Array
  readonly #header: DataView

  constructor(native: Native, vocabSize: number) {
    this.#native = native
    this.#entries = allocate(ENTRY_BYTES * vocabSize)
    this.#array = allocate(ARRAY_BYTES)
    this.#ids = new Int32Array(this.#entries.bytes)
    this.#logits = new Float32Array(this.#entries.bytes)
    this.#header = new DataView(this.#array.bytes)
  }

  /** The next token of a row, accepted by the grammar and by the chain (null: greedy). */
  async choose(row: Float32Array, grammar: Pointer, chain: Pointer | null): Promise<number> {
    let token = await this.#drawFreely(row, chain)
    if (!(await this.#allows(grammar, token))) {
      this.#fill(row)
      await this.#native.applySampler(grammar, this.#array.pointer)
      token = chain ? await this.#select(chain) : this.#likeliest(row.length)
    }
    this.#native.acceptToken(grammar, token)
    if (chain) this.#native.acceptToken(chain, token)
    return token
  }

  free(): void {
    this.#entries.free()
    this.#array.free()
  }

  async #drawFreely(row: Float32Array, chain: Pointer | null): Promise<number> {
    if (!chain) return argmax(row)
    this.#fill(row)
    return this.#select(chain)
  }

  /** A grammar sets the logits of what it refuses to −∞. */
  async #allows(grammar: Pointer, token: number): Promise<boolean> {
    this.#ids[0] = token
    this.#logits[1] = 1
    this.#writeHeader(1)
    await this.#native.applySampler(grammar, this.#array.pointer)
    return this.#logits[1] !== -Infinity
  }

  /** Samplers may sort into memory of their own: the answer is where the header then points. */
  async #select(chain: Pointer): Promise<number> {
    await this.#native.applySampler(chain, this.#array.pointer)
    const data = this.#header.getBigUint64(0, true)
    const selected = this.#header.getBigInt64(16, true)
    if (selected < 0n) throw new Error("llama.cpp's samplers chose no token")
    return int32At((data + selected * BigInt(ENTRY_BYTES)) as Pointer)
  }

  #likeliest(count: number): number {
    let best = 0
    for (let i = 1; i < count; i++) if (this.#logits[3 * i + 1]! > this.#logits[3 * best + 1]!) best = i
    return this.#ids[3 * best]!
  }

  #fill(row: Float32Array): void {
    for (let i = 0; i < row.length; i++) {
      this.#ids[3 * i] = i
      this.#logits[3 * i + 1] = row[i]!
      this.#logits[3 * i + 2] = 0
    }
    this.#writeHeader(row.length)
  }

  #writeHeader(count: number): void {
    this.#header.setBigUint64(0, this.#entries.pointer, true)
    this.#header.setBigUint64(8, BigInt(count), true)
    this.#header.setBigInt64(16, -1n, true)
    this.#header.setUint8(24, 0)
  }
}
