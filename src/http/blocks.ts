/** An answer as the blocks that it is made of: thoughts, text and calls, each begun, gone on with and ended. What the APIs have in
 * common whose streams tell of every block. */
import type { AnswerDelta } from "../text/answer.ts"
import type { CallDelta } from "../text/tools/parts.ts"

export interface Block {
  kind: "thoughts" | "text" | "call"
  /** All of its text so far; of a call its arguments. */
  text: string
  /** Of a call: which. */
  call: { index: number; name: string } | null
}

/** What a stream says of each. */
export interface BlockTeller<B extends Block> {
  /** One that begins. */
  made(block: Block): B
  begun(block: B): void
  /** Its text has the new piece already. */
  wentOn(block: B, piece: string): void
  /** `last`: the answer is over with it. */
  ended(block: B, last: boolean): void
}

export class Blocks<B extends Block> {
  /** Also the one that is being written. */
  readonly all: B[] = []
  readonly #teller: BlockTeller<B>
  #open: B | null = null
  /** White space that is text only if more follows, or nothing does: not before a call. */
  #space = ""

  constructor(teller: BlockTeller<B>) {
    this.#teller = teller
  }

  push({ reasoning, content, toolCalls }: AnswerDelta): void {
    if (reasoning !== "") this.#write("thoughts", reasoning)
    const calls = [...toolCalls]
    // What goes on with a call was written before the text that came with it.
    while (calls[0]?.name === null) this.#call(calls.shift()!)
    if (content !== "") this.#say(content)
    for (const call of calls) this.#call(call)
  }

  /** The answer is over. `least`: it has a block of text at the least. */
  end(least = false): void {
    if (this.#space !== "" && !this.all.some(({ kind }) => kind === "call")) this.#write("text", this.#space)
    if (least && this.all.length === 0) this.#begin("text", null)
    this.#close(true)
  }

  #say(text: string): void {
    const all = this.#space + text
    this.#space = ""
    if (this.#open?.kind !== "text" && all.trim() === "") this.#space = all
    else this.#write("text", all)
  }

  #call({ index, name, arguments: given }: CallDelta): void {
    if (name !== null) {
      this.#space = ""
      this.#begin("call", { index, name })
    }
    if (given !== "" && this.#open?.call?.index === index) this.#goOn(given)
  }

  #write(kind: "thoughts" | "text", text: string): void {
    if (this.#open?.kind !== kind) this.#begin(kind, null)
    this.#goOn(text)
  }

  #goOn(piece: string): void {
    const open = this.#open!
    open.text += piece
    this.#teller.wentOn(open, piece)
  }

  #begin(kind: Block["kind"], call: Block["call"]): void {
    this.#close(false)
    this.#open = this.#teller.made({ kind, text: "", call })
    this.all.push(this.#open)
    this.#teller.begun(this.#open)
  }

  #close(last: boolean): void {
    const open = this.#open
    this.#open = null
    if (open !== null) this.#teller.ended(open, last)
  }
}
