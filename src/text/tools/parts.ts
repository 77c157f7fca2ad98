/** What of an answer's text is what: parts in the order in which they were written. */

/** A piece of a call. The first of a call has its name and no arguments yet. */
export interface CallDelta {
  /** Of the calls of an answer: 0, 1, 2 … */
  index: number
  /** null: the call goes on. */
  name: string | null
  /** More of the arguments' JSON text. */
  arguments: string
}

export type Part =
  | { kind: "content"; text: string }
  | { kind: "reasoning"; text: string }
  | { kind: "call"; delta: CallDelta }
  /** The last call is whole. */
  | { kind: "called" }

/** A tool that a model may call. */
export interface Tool {
  name: string
  /** JSON schema of the arguments; undefined: it has none. */
  parameters: unknown
  /** Whether its arguments are to keep to that schema; left out: where they can. */
  strict?: boolean
}

/** Of OpenAI's object for a tool. */
export function toolOf(tool: unknown): Tool {
  const { name, parameters, strict } = (tool as { function: Tool & { strict?: unknown } }).function
  return {
    ...{ name, parameters: parameters ?? undefined },
    ...(typeof strict === "boolean" && { strict }),
  }
}

/** Where the readers of calls put what they have found. */
export class Found {
  #parts: Part[] = []
  /** White space after a call, kept until other text follows it: between calls it is formatting. */
  #space = ""
  /** Calls that have begun. */
  calls = 0

  /** What was found since the last time. */
  take(): Part[] {
    const parts = this.#parts
    this.#parts = []
    return parts
  }

  content(text: string): void {
    const spaced = this.#space + text
    const end = this.calls > 0 ? spaced.trimEnd().length : spaced.length
    this.#space = spaced.slice(end)
    if (end > 0) this.#parts.push({ kind: "content", text: spaced.slice(0, end) })
  }

  reasoning(text: string): void {
    if (text !== "") this.#parts.push({ kind: "reasoning", text })
  }

  begin(name: string): void {
    this.#space = ""
    this.#parts.push({ kind: "call", delta: { index: this.calls++, name, arguments: "" } })
  }

  arguments(text: string): void {
    if (text === "") return
    this.#parts.push({ kind: "call", delta: { index: this.calls - 1, name: null, arguments: text } })
  }

  end(): void {
    this.#parts.push({ kind: "called" })
  }
}
