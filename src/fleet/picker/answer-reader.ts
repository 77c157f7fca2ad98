/** Reads an answer as it passes: how many tokens came, and the usage at its end. It never changes a byte, and what it
 * cannot read it ignores. */
import type { Sent } from "./chooser.ts"

/** Kept of an event or of a whole answer in JSON; longer ones are not read. */
const MOST_KEPT_BYTES = 1 << 20
const DATA = "data:"
const DONE = "[DONE]"

interface Usage {
  prompt_tokens?: unknown
  completion_tokens?: unknown
  prompt_tokens_details?: { cached_tokens?: unknown } | null
}

export class AnswerReader {
  readonly #sent: Sent
  readonly #stream: boolean
  #rest = ""
  #skipping = false

  /** `contentType` of the answer tells a stream of events from one JSON object. */
  constructor(sent: Sent, contentType: string) {
    this.#sent = sent
    this.#stream = contentType.startsWith("text/event-stream")
  }

  read(piece: Buffer, nowUs: number): void {
    if (this.#skipping || piece.length === 0) return
    this.#rest += piece.toString("latin1")
    if (this.#stream) this.#readEvents(nowUs)
    if (this.#rest.length > MOST_KEPT_BYTES) {
      this.#rest = ""
      this.#skipping = true
    }
  }

  /** The whole answer has come. */
  end(nowUs: number): void {
    if (this.#stream || this.#skipping) return
    this.#usageIn(this.#rest, nowUs)
    this.#rest = ""
  }

  #readEvents(nowUs: number): void {
    const lines = this.#rest.split("\n")
    this.#rest = lines.pop()!
    let events = 0
    for (const line of lines) {
      if (!line.startsWith(DATA) || line.includes(DONE, DATA.length)) continue
      // An event may have usage and tokens, or usage alone.
      if (line.includes('"usage":{') || line.includes('"usage": {'))
        this.#usageIn(line.slice(DATA.length), nowUs)
      if (!line.includes('"choices":[]') && !line.includes('"choices": []')) events++
    }
    if (events > 0) this.#sent.tokens(events, nowUs)
  }

  #usageIn(json: string, nowUs: number): void {
    let usage: Usage | null | undefined
    try {
      usage = (JSON.parse(json) as { usage?: Usage | null } | null)?.usage
    } catch {
      return
    }
    const count = (value: unknown) =>
      typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : 0
    if (usage === null || typeof usage !== "object") return
    const output = count(usage.completion_tokens)
    if (!this.#stream && output > 0) this.#sent.tokens(output, nowUs)
    this.#sent.usage(count(usage.prompt_tokens), count(usage.prompt_tokens_details?.cached_tokens), output)
  }
}
