/** Calls as XML, a parameter an element, its value as it is: Qwen3-Coder, Qwen 3.5, Nemotron 3.
 *
 * `<tool_call>\n<function=name>\n<parameter=key>\nvalue\n</parameter>\n</function>\n</tool_call>` */
import type { ToolFormat } from "./format.ts"
import { HERMES } from "./hermes.ts"
import { bareCalls, jsonCall } from "./json-call.ts"
import type { Found, Tool } from "./parts.ts"
import type { Reading, Unread } from "./unread.ts"
import { jsonOf, typesOf } from "./values.ts"

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

  *read(text, found, { tools, names, bare }) {
    if (bare) yield* bareCalls(text, found, names)
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

  // Values as they are keep to no schema: a call that must is written as JSON, which is read as well.
  calls: (grammar, tools, several) => HERMES.calls(grammar, tools, several),
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
