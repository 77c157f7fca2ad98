/** How models write tool calls: one file and one row (formats.ts) for each way. */
import type { Zones } from "../../engine/constraint/zones.ts"
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
  /** An answer that is nothing but JSON may be a call: of any form that says what it calls, or only as it is `held` by the
   * grammar of such an answer. */
  bare: boolean
  held: boolean
}

/** A tool whose calls a grammar holds. */
export interface HeldTool extends Tool {
  /** Body of a rule that is its arguments: always an object. */
  rule: string
  /** The rule keeps to the schema; else it is any object. */
  kept: boolean
}

export interface HeldAnswer {
  /** Bodies of what a grammar holds, in the order of their numbers. */
  parts: readonly string[]
  zones: Zones
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
  calls(grammar: SchemaGrammar, tools: readonly HeldTool[], several: boolean): string
  /** An answer in which calls of these tools may come. What begins one, by `read`, keeps to its tool's schema to its end. */
  answer(grammar: SchemaGrammar, tools: readonly HeldTool[]): HeldAnswer
  /** Its thoughts are written in the same marks as its calls: it reads both, with tools and without. */
  thinks?: true
  /** Ids of calls have so many characters in its template. */
  idLength?: number
}
