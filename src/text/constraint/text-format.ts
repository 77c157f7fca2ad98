/** What a request asks of its text, however its client spells it: OpenAI's `response_format`, vLLM's `guided_…` and
 * `structured_outputs`, llama.cpp's `json_schema` and `grammar`, SGLang's `regex` and `ebnf`. */
import { UserError } from "../../errors.ts"
import { parseExactly } from "./exact-json.ts"
import type { TextFormat } from "./grammar.ts"
import { isObject } from "./schema-size.ts"

type Read = (value: unknown, param: string) => TextFormat | null

const READERS: Readonly<Record<string, Read>> = {
  response_format: responseFormat,
  structured_outputs: structuredOutputs,
  guided_json: schemaOf,
  guided_regex: (value, param) => ({ kind: "regex", pattern: value as string, param }),
  guided_choice: choiceOf,
  guided_grammar: grammarOf,
  json_schema: schemaOf,
  grammar: grammarOf,
  ebnf: grammarOf,
  regex: (value, param) => ({ kind: "regex", pattern: value as string, param }),
}

/** Fields of a request that say it. */
export const FORMAT_FIELDS: readonly string[] = Object.keys(READERS)

/** null: the text is free. `body` as it was validated, `exact` as it was sent. */
export function textFormat(
  body: Readonly<Record<string, unknown>>,
  exact: Readonly<Record<string, unknown>>,
): TextFormat | null {
  let asked: TextFormat | null = null
  for (const field of FORMAT_FIELDS) {
    const value = exact[field]
    if (value === undefined || value === null || body[field] === undefined) continue
    const format = READERS[field]!(value, field)
    if (format === null) continue
    if (asked !== null)
      throw wrong(format.param, `the text is held to '${asked.param}' already: leave one of them out`)
    asked = format
  }
  return asked
}

function responseFormat(value: unknown, param: string): TextFormat | null {
  const format = value as { type: string; schema?: unknown; json_schema?: { name: string; schema: unknown } }
  if (format.type === "text") return null
  if (format.type === "json_schema")
    return {
      kind: "schema",
      what: `${param} '${format.json_schema!.name}'`,
      schema: format.json_schema!.schema,
      param,
    }
  if (format.schema === undefined || format.schema === null) return { kind: "object", param }
  return { kind: "schema", what: param, schema: format.schema, param }
}

const STRUCTURED: Readonly<Record<string, Read>> = {
  json: schemaOf,
  json_object: (value, param) => (value === true ? { kind: "object", param } : null),
  regex: (pattern, param) => {
    if (typeof pattern === "string") return { kind: "regex", pattern, param }
    throw wrong(param, "must be a string")
  },
  choice: choiceOf,
  grammar: grammarOf,
}

function structuredOutputs(value: unknown, param: string): TextFormat | null {
  const given = Object.entries(value as object).filter(
    ([, one]) => one !== null && one !== undefined && one !== false,
  )
  const [first, second] = given
  if (first === undefined) return null
  const unknown = given.find(([name]) => !Object.hasOwn(STRUCTURED, name))
  if (unknown !== undefined)
    throw wrong(
      `${param}.${unknown[0].slice(0, 40)}`,
      `is not supported: use ${Object.keys(STRUCTURED).join(", ")}`,
    )
  if (second !== undefined) throw wrong(`${param}.${second[0]}`, `the text is held to '${first[0]}' already`)
  return STRUCTURED[first[0]]!(first[1], `${param}.${first[0]}`)
}

/** As an object or as JSON text. */
function schemaOf(value: unknown, param: string): TextFormat {
  const schema = typeof value === "string" ? parsed(value, param) : value
  if (!isObject(schema) && typeof schema !== "boolean")
    throw wrong(param, "must be a JSON schema (an object)")
  return { kind: "schema", what: param, schema: typeof schema === "boolean" ? {} : schema, param }
}

function parsed(text: string, param: string): unknown {
  try {
    return parseExactly(text)
  } catch {
    throw wrong(param, "must be a JSON schema, and is no JSON")
  }
}

function choiceOf(value: unknown, param: string): TextFormat {
  if (Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === "string" && one !== ""))
    return { kind: "choice", choices: value as string[], param }
  throw wrong(param, "must be a list of texts, none of them empty")
}

function grammarOf(value: unknown, param: string): TextFormat {
  if (typeof value === "string" && /^\s*root\s*::=/m.test(value))
    return { kind: "grammar", text: value, param }
  throw wrong(param, "must be a grammar in GBNF or EBNF with a rule 'root ::= …'")
}

function wrong(param: string, why: string): UserError {
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
