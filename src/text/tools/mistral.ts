/** `[TOOL_CALLS]` and calls: a list of objects (Mistral Nemo), or a name and arguments for each (Mistral Small 3.2 and later). */
import { literal } from "../constraint/ebnf.ts"
import { callBody, writtenBody } from "./bodies.ts"
import type { HeldTool, ToolFormat } from "./format.ts"
import { freeAnswer } from "./held.ts"
import { bareCalls, jsonArguments, jsonCall, moreCalls } from "./json-call.ts"
import type { Found } from "./parts.ts"
import type { Reading, Unread } from "./unread.ts"

const OPEN = "[TOOL_CALLS]"
const ARGUMENTS = "[ARGS]"
const ID = "[CALL_ID]"
const ID_LENGTH = 9

const common = {
  idLength: ID_LENGTH,
  *read(text, found, context) {
    yield* bareCalls(text, found, context)
    while ((yield* text.until([OPEN], (content) => found.content(content))) !== null) {
      text.keep()
      if ((yield* calls(text, found)) === "none") {
        text.back()
        found.content(OPEN)
      } else text.forget()
    }
  },
} satisfies Partial<ToolFormat>

function* calls(text: Unread, found: Found): Reading<"call" | "none" | "cut"> {
  yield* text.space()
  const first = yield* text.peek()
  if (first === null) return "cut"
  if (first !== "[" && first !== "{") return yield* named(text, found)
  if (first === "[") text.skip()
  const end = yield* jsonCall(text, found)
  if (end !== "call" || first === "{") return end
  yield* moreCalls(text, found, {}, ",")
  yield* text.takes("]")
  return end
}

/** `name[ARGS]{…}`, with the call's id before its arguments or not. */
function* named(text: Unread, found: Found): Reading<"call" | "none" | "cut"> {
  let name = ""
  let word = yield* text.until([ARGUMENTS, ID, "{", "\n"], (part) => {
    name += part
  })
  if (word === ID) word = yield* text.until([ARGUMENTS, "\n"], () => {})
  if (word === null) return "cut"
  name = name.trim()
  if (name === "" || word === "\n") return "none"
  // Without its mark the brace is part of the arguments.
  if (word === "{") text.skip(-1)
  text.forget()
  found.begin(name)
  const end = yield* jsonArguments(text, found)
  if (end === "no") found.arguments("{}")
  if (end !== "cut") found.end()
  return "call"
}

/** The end of a call that has an id. */
const IDENTIFIED = `${literal(', "id": "')} [a-zA-Z0-9]{${ID_LENGTH}} ${literal('"}')}`

export const MISTRAL_LIST: ToolFormat = {
  ...common,
  name: "mistral-list",
  fits: (template) => template.includes(OPEN) && !template.includes(ARGUMENTS),
  write: (written) => `${OPEN}[${written.map((call) => writtenBody(call, "arguments")).join(", ")}]`,
  calls(grammar, tools, several) {
    grammar.rule("call", tools.map((tool) => callBody(tool, "arguments", IDENTIFIED)).join(" | "))
    return `${literal(`${OPEN}[`)} call ${several ? `(", " call)*` : ""} "]"`
  },

  // Left to itself it gives no ids.
  answer(grammar, tools) {
    const end = `(${IDENTIFIED} | "}")`
    grammar.rule("call", tools.map((tool) => callBody(tool, "arguments", end)).join(" | "))
    return freeAnswer(grammar, tools, [{ mark: OPEN, after: `" "? "[" call (", " call)* "]"` }])
  },
}

export const MISTRAL: ToolFormat = {
  ...common,
  name: "mistral",
  fits: (template) => template.includes(OPEN) && template.includes(ARGUMENTS),
  write: (written) =>
    written
      .map(({ name, arguments: given }) => `${OPEN}${name}${ARGUMENTS}${JSON.stringify(given)}`)
      .join(""),
  calls(grammar, tools, several) {
    grammar.rule("call", `${literal(OPEN)} (${tools.map((tool) => afterOpen(tool)).join(" | ")})`)
    return several ? "call call*" : "call"
  },

  answer(grammar, tools) {
    const call = grammar.named("call", tools.map((tool) => afterOpen(tool)).join(" | "))
    return freeAnswer(grammar, tools, [{ mark: OPEN, after: `${call}` }])
  },
}

function afterOpen({ name, rule }: HeldTool): string {
  return `${literal(`${name}${ARGUMENTS}`)} ${rule}`
}
