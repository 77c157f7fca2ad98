/** How models write tool calls: one file and one row (formats.ts) for each way. */
import type { SchemaGrammar } from "../constraint/json-schema.ts"
import type { Found, Tool } from "./parts.ts"
import type { Reading, Unread } from "./unread.ts"

export interface WrittenCall {
  name: string
  arguments: Readonly<Record<string, unknown>>
}

export interface ReadContext {
  tools: readonly Tool[]
  names: ReadonlySet<string>
  /** An answer that is nothing but JSON may be a call. */
  bare: boolean
}

export interface ToolFormat {
  name: string
  /** Whether a model with this chat template writes its calls so. */
  fits(template: string): boolean
  /** Reads an answer to its end. Its thoughts are taken off before, unless it `thinks`. */
  read(text: Unread, found: Found, context: ReadContext): Reading
  /** As a prompt shows calls, where the template does not. */
  write(calls: readonly WrittenCall[]): string
  /** Body of a rule that is calls of these tools, one or several. */
  calls(grammar: SchemaGrammar, tools: readonly Tool[], several: boolean): string
  /** Its thoughts are written in the same marks as its calls: it reads both, with tools and without. */
  thinks?: true
  /** Ids of calls have so many characters in its template. */
  idLength?: number
}
