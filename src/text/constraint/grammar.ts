/** The grammar that an answer is held to: JSON, a JSON schema, a regular expression, a grammar of the client's, calls of given
 * tools, or a choice of these. */
import { zonesHeader, zonesOf } from "../../engine/constraint/zones.ts"
import { userError } from "../../errors.ts"
import type { ToolFormat } from "../tools/format.ts"
import { GENERIC } from "../tools/formats.ts"
import { heldTools, heldWhereKept, partsBody, thinkingFirst } from "../tools/held.ts"
import type { Tool } from "../tools/parts.ts"
import { textCharacters } from "./code-points.ts"
import { alternatives, literal } from "./ebnf.ts"
import { mayDiffer } from "./exact-json.ts"
import { SchemaGrammar } from "./json-schema.ts"
import { patternGraph, UnsupportedPattern } from "./pattern.ts"
import { graphRule } from "./strings.ts"

/** What a text must be. `param`: the request's field that says so. */
export type TextFormat = { param: string } & (
  | { kind: "object" }
  /** `what`: for messages. */
  | { kind: "schema"; what: string; schema: unknown }
  /** The whole text matches. */
  | { kind: "regex"; pattern: string }
  | { kind: "choice"; choices: readonly string[] }
  /** GBNF or EBNF with a rule `root`. */
  | { kind: "grammar"; text: string }
)

export interface OutputFormat {
  /** null: free text. */
  text: TextFormat | null
  /** Tools one of which must be called (or may be, when there is a format of text); empty: none. */
  calls: readonly Tool[]
  /** More than one call may be made. */
  parallel: boolean
}

/** EBNF with a rule `root`, or null when anything may be said. Calls are written as the model's `format` is. Throws
 * UserError for what it cannot keep. */
export function outputGrammar(
  { text, calls, parallel }: OutputFormat,
  format: ToolFormat = GENERIC,
): string | null {
  if (text === null && calls.length === 0) return null
  const grammar = new SchemaGrammar()
  const choices: string[] = []
  if (text !== null) choices.push(textBody(grammar, text))
  if (calls.length > 0) choices.push(format.calls(grammar, heldTools(grammar, calls), parallel))
  return grammar.text(choices.join(" | "))
}

/** EBNF of an answer that may say anything and call these tools: a call that has begun keeps to its tool's schema, where a
 * grammar can keep that, and is one JSON object in any case. Throws UserError where a strict tool's schema cannot be kept. */
export function callingGrammar(tools: readonly Tool[], format: ToolFormat): string {
  const key = `${format.name} ${JSON.stringify(tools)}`
  const known = made.get(key)
  if (known !== undefined) return known
  const grammar = new SchemaGrammar()
  const { parts, zones } = format.answer(grammar, heldWhereKept(grammar, tools))
  const text = grammar.text(partsBody(parts), zonesHeader(zones))
  if (made.size >= MOST_MADE) made.delete(made.keys().next().value!)
  // Two orders of such names are one text.
  if (!mayDiffer(key)) made.set(key, text)
  return text
}

/** Of the tools that were last seen: agents send the same ones with every request, and a hundred take milliseconds. */
const made = new Map<string, string>()
const MOST_MADE = 32

/** Whether it is one of those. */
export function isCalling(grammar: string | null): boolean {
  return grammar !== null && zonesOf(grammar) !== null
}

function textBody(grammar: SchemaGrammar, text: TextFormat): string {
  if (text.kind === "object") return "object"
  if (text.kind === "schema") return grammar.add(text.schema, text)
  if (text.kind === "choice") return alternatives(text.choices.map(literal))
  if (text.kind === "regex") return regexBody(grammar, text)
  grammar.append(renamed(text.text))
  return OWN_ROOT
}

function regexBody(grammar: SchemaGrammar, { pattern, param }: { pattern: string; param: string }): string {
  try {
    return graphRule(patternGraph(`^(?:${pattern})$`), grammar, textCharacters, '""')
  } catch (error) {
    if (!(error instanceof UnsupportedPattern)) throw error
    const message = `Invalid '${param}': the regular expression has ${error.message}, which is not supported here.`
    throw userError("invalid_json_schema", { message }, { param })
  }
}

const OWN_ROOT = "text-root"
/** Literals, classes and comments, in which names are none; and names. */
const NAMES = /("(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*)|[A-Za-z_][\w-]*/g

/** A client's grammar with names that none of our rules has. */
function renamed(text: string): string {
  return text.replace(NAMES, (found, kept: string | undefined) => kept ?? `text-${found}`)
}

/** What a model may think: anything to the first `</think>` but the byte that marks begin with (counted.ts). One rule a
 * state, for the reason in ebnf.ts. */
const THOUGHTS = `thoughts ::= [^<\\x01] thoughts | "<" thoughts-lt
thoughts-lt ::= "<" thoughts-lt | [^</\\x01] thoughts | "/" thoughts-end
thoughts-end ::= "<" thoughts-lt | [^<t\\x01] thoughts | "think>" ("" | "\\n" | "\\n\\n")`

/** The same answer after thinking: `opened` when the prompt already ends in `<think>`; otherwise it is optional. */
export function afterThinking(grammar: string, opened: boolean): string {
  // What may say anything may think.
  if (isCalling(grammar)) return opened ? thinkingFirst(grammar) : grammar
  const root = opened ? "root ::= thoughts answer" : `root ::= ("<think>" thoughts)? answer`
  return grammar.replace(/^root ::=/m, `${root}\n${THOUGHTS}\nanswer ::=`)
}
