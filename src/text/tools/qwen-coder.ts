/** Calls as XML, a parameter an element, its value as it is: Qwen3-Coder, Qwen 3.5, Nemotron 3.
 *
 * `<tool_call>\n<function=name>\n<parameter=key>\nvalue\n</parameter>\n</function>\n</tool_call>` */
import { alternatives, literal } from "../constraint/ebnf.ts"
import { keysOf } from "../constraint/exact-json.ts"
import type { SchemaGrammar } from "../constraint/json-schema.ts"
import { isObject } from "../constraint/schema-size.ts"
import { callBody, isNothing } from "./bodies.ts"
import type { HeldTool, ToolFormat } from "./format.ts"
import { freeAnswer } from "./held.ts"
import { HERMES } from "./hermes.ts"
import { bareCalls, jsonCall } from "./json-call.ts"
import type { Found, Tool } from "./parts.ts"
import type { Reading, Unread } from "./unread.ts"
import { jsonOf, textsOf, typesOf } from "./values.ts"

const OPEN = "<tool_call>"
const CLOSE = "</tool_call>"
const FUNCTION = "<function="
const FUNCTION_END = "</function>"
const PARAMETER = "<parameter="
/** A value ends where this is followed by another parameter or the function's end: it may contain the mark itself. */
const PARAMETER_END = "</parameter>"

export const QWEN_CODER: ToolFormat = {
  name: "qwen-coder",
  fits: (template) => [OPEN, FUNCTION, PARAMETER].every((mark) => template.includes(mark)),

  *read(text, found, context) {
    const { tools } = context
    // A grammar holds its calls in this form alone.
    if (!context.held) yield* bareCalls(text, found, context)
    for (;;) {
      // Some leave the outer mark away.
      const mark = yield* text.until([OPEN, FUNCTION], (content) => found.content(content))
      if (mark === null) return
      text.keep()
      if (mark === OPEN) {
        yield* text.space()
        const taken = yield* text.takes(FUNCTION)
        if (taken === "cut") return
        if (taken === "no" && (yield* jsonCall(text, found)) === "none") {
          text.back()
          found.content(mark)
          continue
        }
        if (taken === "yes") yield* call(text, found, tools)
      } else yield* call(text, found, tools)
      text.forget()
      yield* text.space()
      yield* text.takes(CLOSE)
    }
  },

  write: (calls) =>
    calls
      .map(({ name, arguments: given }) => {
        const values = Object.entries(given).map(
          ([key, value]) => `${PARAMETER}${key}>\n${written(value)}\n${PARAMETER_END}\n`,
        )
        return `${OPEN}\n${FUNCTION}${name}>\n${values.join("")}${FUNCTION_END}\n${CLOSE}`
      })
      .join("\n"),

  // Values as they are keep to no schema of strings: a call that must is written as JSON, which is read as well.
  calls: (grammar, tools, several) => HERMES.calls(grammar, tools, several),

  answer(grammar, tools) {
    rawRules(grammar)
    const xml = tools.map((tool) => ({ tool, body: xmlBody(grammar, tool) }))
    const inXml = xml.flatMap(({ body }) => body ?? [])
    const inJson = xml.filter(({ body }) => body === null).map(({ tool }) => callBody(tool, "arguments"))
    const call = alternatives([...(inXml.length > 0 ? [`${literal(FUNCTION)} call`] : []), ...inJson])
    // A tool that is called in JSON alone has no call that begins without the outer mark.
    grammar.rule("call", inXml.length > 0 ? inXml.join(" | ") : NEVER)
    return freeAnswer(
      grammar,
      [],
      [
        { mark: OPEN, after: `"\\n" ${call} ${literal(`\n${CLOSE}`)}` },
        { mark: FUNCTION, after: `call` },
      ],
    )
  },
}

/** Rule of a text up to the end of its parameter. */
const RAW = "raw"

/** So many characters of the mark that ends a value are that mark: no other text has them. */
const TELLING = "</parame".length

/** One rule a state, for the reason in ebnf.ts: of all that was said it knows how much of the mark was just read. */
function rawRules(grammar: SchemaGrammar): void {
  const rule = (read: number) => (read === 0 ? RAW : `${RAW}-${read}`)
  for (let read = 0; read < TELLING; read++) {
    const next = PARAMETER_END[read]!
    const on = read + 1 === TELLING ? literal(`${PARAMETER_END.slice(TELLING)}\n`) : rule(read + 1)
    // No other character of the mark is its first.
    const again = read === 0 ? "" : ` | "<" ${rule(1)}`
    grammar.rule(
      rule(read),
      `${literal(next)} ${on} | [^${read === 0 ? "" : "<"}${next}\\x01] ${RAW}${again}`,
    )
  }
  grammar.rule(KEY, `[^>\\n\\x01] ${KEY}-rest`)
  grammar.rule(`${KEY}-rest`, `[^>\\n\\x01] ${KEY}-rest | ">\\n"`)
}

/** Rule of any key and what ends its mark. */
const KEY = "key"
/** No token spells it. */
const NEVER = literal("\u0001")
/** What a schema of an object may say whose parameters can be held one by one. */
const PLAIN_OBJECT = new Set(
  "type properties required additionalProperties title description $schema $defs definitions".split(" "),
)

/** A call after `<function=`. null: its parameters cannot be held one by one. */
function xmlBody(grammar: SchemaGrammar, tool: HeldTool): string | null {
  const { name, parameters, kept } = tool
  if (!isPlainName(name)) return null
  const wrap = (body: string) => `${literal(`${name}>\n`)} ${body} ${literal(FUNCTION_END)}`
  if (isNothing(parameters)) return wrap("")
  if (!kept) return wrap(`(${literal(PARAMETER)} ${KEY} ${RAW})*`)
  if (!isObject(parameters) || !Object.keys(parameters).every((key) => PLAIN_OBJECT.has(key))) return null
  const { properties, required, additionalProperties: others } = parameters
  if (!isObject(properties) || (others !== undefined && others !== false)) return null
  const needed = new Set(Array.isArray(required) ? required : [])
  if ([...needed].some((key) => !Object.hasOwn(properties, key as string))) return null
  const members: string[] = []
  for (const key of keysOf(properties)) {
    const value = isPlainName(key) ? valueBody(grammar, tool, key) : null
    if (value === null) return null
    const rule = grammar.named("parameter", `${literal(`${PARAMETER}${key}>\n`)} ${value}`)
    members.push(needed.has(key) ? rule : `${rule}?`)
  }
  return wrap(members.join(" "))
}

/** It can stand in a mark. */
function isPlainName(name: string): boolean {
  return name.trim() === name && /^[^>\n]+$/.test(name)
}

/** A value and the end of its parameter. Strings are written as they are: of what a schema says of them only lists of values
 * are kept. null: it cannot be held. */
function valueBody(grammar: SchemaGrammar, { name, parameters }: HeldTool, key: string): string | null {
  const schema = (parameters as { properties: Record<string, unknown> }).properties[key]
  const end = literal(`\n${PARAMETER_END}\n`)
  const texts = textsOf(schema, parameters as Record<string, unknown>)
  if (texts === "any") return RAW
  if (texts !== null)
    return texts.some((text) => text.includes(PARAMETER_END))
      ? null
      : `${alternatives(texts.map(literal))} ${end}`
  if (typesOf(parameters, key) === null) return null
  const pointer = `#/properties/${encodeURIComponent(key.replace(/~/g, "~0").replace(/\//g, "~1"))}`
  const rule = grammar.addPart(pointer, parameters, { what: `function '${name}'`, param: "tools" })
  return `${rule} ${end}`
}

function written(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value)
}

function* call(text: Unread, found: Found, tools: readonly Tool[]): Reading {
  let name = ""
  if ((yield* text.until([">"], (part) => (name += part))) === null) return
  text.forget()
  found.begin(name.trim())
  const tool = tools.find((one) => one.name === name.trim())
  let first = true
  for (;;) {
    yield* text.space()
    const taken = yield* text.takes(PARAMETER)
    if (taken !== "yes") break
    let key = ""
    if ((yield* text.until([">"], (part) => (key += part))) === null) return
    found.arguments(`${first ? "{" : ", "}${JSON.stringify(key.trim())}: `)
    first = false
    if (!(yield* value(text, found, typesOf(tool?.parameters, key.trim())))) return
  }
  const ended = yield* text.takes(FUNCTION_END)
  if (ended === "cut") return
  found.arguments(first ? "{}" : "}")
  found.end()
}

/** A parameter's value, to its end mark. Strings are told as they come, others when they are whole. False: it was cut. */
function* value(text: Unread, found: Found, types: ReadonlySet<string> | null): Reading<boolean> {
  const asText = types?.size === 1 && types.has("string")
  yield* text.takes("\n")
  if (asText) found.arguments('"')
  let raw = ""
  const tell = (part: string) => {
    if (asText) found.arguments(JSON.stringify(part).slice(1, -1))
    else raw += part
  }
  for (;;) {
    const end = yield* text.until([`\n${PARAMETER_END}`, PARAMETER_END], tell, 1)
    if (end === null) return false
    text.keep()
    if (yield* isOver(text)) {
      text.back()
      break
    }
    text.back()
    tell(end)
  }
  found.arguments(asText ? '"' : jsonOf(raw, types))
  return true
}

/** After what looks like the end of a value. */
function* isOver(text: Unread): Reading<boolean> {
  yield* text.space()
  if ((yield* text.takes(PARAMETER)) !== "no") return true
  if ((yield* text.takes(FUNCTION_END)) !== "no") return true
  // A model that forgets the function's end.
  return (yield* text.takes(CLOSE)) !== "no"
}
