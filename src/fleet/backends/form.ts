/** What a request asks of its text, in words that an engine's kind knows: engines ignore what they do not. */
import { FORMAT_FIELDS, textFormat } from "../../text/constraint/text-format.ts"
import type { Api, BackendKind, Form } from "./kind.ts"

type Body = Readonly<Record<string, unknown>>

/** JSON as OpenAI's own API asks for it. */
export const openaiForm: Form = (format) => {
  if (format.kind === "object") return { response_format: { type: "json_object" } }
  if (format.kind !== "schema") return null
  return { response_format: { type: "json_schema", json_schema: { name: "answer", schema: format.schema } } }
}

export const vllmForm: Form = (format, api) => {
  if (format.kind === "regex") return { structured_outputs: { regex: format.pattern } }
  if (format.kind === "choice") return { structured_outputs: { choice: format.choices } }
  if (format.kind === "grammar") return { structured_outputs: { grammar: format.text } }
  return openaiForm(format, api)
}

export const sglangForm: Form = (format, api) => {
  if (format.kind === "regex") return { regex: format.pattern }
  if (format.kind === "choice") return { regex: `(${format.choices.map(escaped).join("|")})` }
  if (format.kind === "grammar") return { ebnf: format.text }
  return openaiForm(format, api)
}

export const llamaServerForm: Form = (format, api) => {
  if (format.kind === "grammar") return { grammar: format.text }
  if (format.kind === "choice") return { grammar: `root ::= ${format.choices.map(literal).join(" | ")}` }
  if (format.kind === "regex" || api === "chat") return openaiForm(format, api)
  // Its completions know no response_format.
  return { json_schema: format.kind === "schema" ? format.schema : { type: "object" } }
}

/** What no engine of this kind can be held to, by the field that asks for it; null: all that is asked for can be had. */
export function unknownForm(body: Body | undefined, kind: BackendKind, api: Api): string | null {
  const format = body === undefined ? null : textFormat(body, body)
  return format === null || kind.form(format, api) !== null ? null : format.param
}

/** The same body, its text's form in the engine's words. One that the engine knows as it is stays so. */
export function withForm(body: Body, kind: BackendKind, api: Api): Record<string, unknown> {
  const format = textFormat(body, body)
  const told = format === null ? null : kind.form(format, api)
  if (told === null) return { ...body }
  const { response_format: given } = body
  const isKnown =
    "response_format" in told && (given as { type?: unknown } | undefined)?.type === "json_schema"
  const rest = Object.entries(body).filter(([field]) => !FORMAT_FIELDS.includes(field))
  return { ...Object.fromEntries(rest), ...(isKnown ? { response_format: given } : told) }
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")
}

/** A string of GBNF. */
function literal(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they would end the string, or the line.
  const inside = text.replace(/["\\\u0000-\u001f\u007f]/g, (one) => {
    return `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`
  })
  return `"${inside}"`
}
