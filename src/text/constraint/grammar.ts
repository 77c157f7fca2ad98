/** The grammar that an answer is held to: JSON, a JSON schema, calls of given tools, or a choice of these. */
import { literal } from "./ebnf.ts"
import { SchemaGrammar } from "./json-schema.ts"

export interface ToolSpec {
  name: string
  /** JSON schema of the arguments; undefined: any object. */
  parameters: unknown
}

export interface OutputFormat {
  /** What the text must be; null: free text. */
  text: { kind: "object" } | { kind: "schema"; name: string; schema: unknown } | null
  /** Tools one of which must be called (or may be, when there is a format of text); empty: none. */
  calls: readonly ToolSpec[]
  /** More than one call may be made. */
  parallel: boolean
}

/** EBNF with a rule `root`, or null when anything may be said. Throws UserError for a schema it cannot keep. */
export function outputGrammar(format: OutputFormat): string | null {
  const { text, calls } = format
  if (text === null && calls.length === 0) return null
  const grammar = new SchemaGrammar()
  const choices: string[] = []
  if (text?.kind === "object") choices.push("object")
  if (text?.kind === "schema") {
    const source = { what: `response_format '${text.name}'`, param: "response_format" }
    choices.push(grammar.add(text.schema, source))
  }
  if (calls.length > 0) {
    const bodies = calls.map((tool) => callBody(grammar, tool))
    grammar.rule("call", `"<tool_call>\\n" (${bodies.join(" | ")}) "\\n</tool_call>"`)
    choices.push(format.parallel ? `call ("\\n" call)*` : "call")
  }
  return grammar.text(choices.join(" | "))
}

function callBody(grammar: SchemaGrammar, { name, parameters }: ToolSpec): string {
  const source = { what: `function '${name}'`, param: "tools" }
  const rule = grammar.add(parameters ?? { type: "object" }, source)
  return `${literal(`{"name": ${JSON.stringify(name)}, "arguments": `)} ${rule} "}"`
}

/** What a model may think: anything to the first `</think>` but the byte that marks begin with (counted.ts). One rule a
 * state, for the reason in ebnf.ts. */
const THOUGHTS = `thoughts ::= [^<\\x01] thoughts | "<" thoughts-lt
thoughts-lt ::= "<" thoughts-lt | [^</\\x01] thoughts | "/" thoughts-end
thoughts-end ::= "<" thoughts-lt | [^<t\\x01] thoughts | "think>" ("" | "\\n" | "\\n\\n")`

/** The same answer after thinking: `opened` when the prompt already ends in `<think>`; otherwise it is optional. */
export function afterThinking(grammar: string, opened: boolean): string {
  const root = opened ? "root ::= thoughts answer" : `root ::= ("<think>" thoughts)? answer`
  return grammar.replace(/^root ::=/m, `${root}\n${THOUGHTS}\nanswer ::=`)
}
