/** Splits a stream of text pieces into thinking (`<think>` … `</think>`) and answer, whatever the pieces. */
import { heldBack } from "./holdback.ts"

const OPEN = "<think>"
const CLOSE = "</think>"

export interface Split {
  reasoning: string
  content: string
}

/** `undecided`: nothing but white space or part of `<think>` was seen. */
type Phase = "undecided" | "thinking" | "afterThinking" | "answering"

export class ThinkSplitter {
  #phase: Phase
  #held = ""
  /** White space around the markers belongs to the template, not to the text. */
  #skipSpace: boolean
  /** There was a thinking phase. */
  thought: boolean

  /** `opened`: the prompt already ends in `<think>`. */
  constructor(opened: boolean) {
    this.#phase = opened ? "thinking" : "undecided"
    this.#skipSpace = opened
    this.thought = opened
  }

  /** The answer has begun: the next text, if any, belongs to it. */
  get answering(): boolean {
    return this.#phase === "answering" || this.#phase === "afterThinking"
  }

  push(piece: string): Split {
    const out: Split = { reasoning: "", content: "" }
    let text = this.#held + piece
    this.#held = ""
    if (this.#phase === "undecided") {
      const lead = text.trimStart()
      if (lead.startsWith(OPEN)) {
        text = lead.slice(OPEN.length)
        this.#phase = "thinking"
        this.thought = true
        this.#skipSpace = true
      } else if (OPEN.startsWith(lead)) {
        this.#held = text
        return out
      } else this.#phase = "answering"
    }
    if (this.#phase === "thinking") text = this.#think(text, out)
    if (this.#phase === "afterThinking") {
      text = text.trimStart()
      if (text !== "") this.#phase = "answering"
    }
    if (this.#phase === "answering") out.content = text
    return out
  }

  /** What was held back, once it is known that nothing follows. */
  flush(): Split {
    const text = this.#held
    this.#held = ""
    return this.#phase === "thinking" ? { reasoning: text, content: "" } : { reasoning: "", content: text }
  }

  /** Emits thinking text; returns what follows the end marker, if it is there. */
  #think(text: string, out: Split): string {
    if (this.#skipSpace) {
      text = text.trimStart()
      if (text === "") return ""
      this.#skipSpace = false
    }
    const end = text.indexOf(CLOSE)
    if (end >= 0) {
      out.reasoning = text.slice(0, end)
      this.#phase = "afterThinking"
      return text.slice(end + CLOSE.length)
    }
    const held = heldBack(text, [CLOSE])
    this.#held = text.slice(text.length - held)
    out.reasoning = text.slice(0, text.length - held)
    return ""
  }
}
