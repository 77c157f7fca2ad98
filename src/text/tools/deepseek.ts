/** A call between marks, its arguments in a block of code (DeepSeek V3 and R1) or bare (V3.1). */
import { literal } from "../constraint/ebnf.ts"
import type { SchemaGrammar } from "../constraint/json-schema.ts"
import type { HeldTool, ToolFormat } from "./format.ts"
import { freeAnswer } from "./held.ts"
import { bareCalls, jsonArguments } from "./json-call.ts"
import type { Found } from "./parts.ts"
import type { Reading, Unread } from "./unread.ts"

const BEGIN = "<｜tool▁calls▁begin｜>"
const END = "<｜tool▁calls▁end｜>"
const CALL = "<｜tool▁call▁begin｜>"
const CALL_END = "<｜tool▁call▁end｜>"
const BETWEEN = "<｜tool▁sep｜>"
const FENCE = "```json\n"

const common = {
  *read(text, found, context) {
    yield* bareCalls(text, found, context)
    for (;;) {
      const mark = yield* text.until([BEGIN, CALL, END], (content) => found.content(content))
      if (mark === null) return
      if (mark !== CALL) continue
      yield* call(text, found)
      // A mark that comes to nothing after a call is none of the text.
      text.brokenOff = true
    }
  },
} satisfies Partial<ToolFormat>

function* call(text: Unread, found: Found): Reading {
  let head = ""
  if ((yield* text.until([BETWEEN], (part) => (head += part))) === null) return
  let name = head.trim()
  // The older form has the kind of tool first, which is always this, and then the name in a line of its own.
  if (name === "function" && (yield* text.peek()) !== "{") {
    name = ""
    if ((yield* text.until(["\n"], (part) => (name += part))) === null) return
    name = name.trim()
    yield* text.takes(FENCE)
  }
  if (name === "") return
  found.begin(name)
  const end = yield* jsonArguments(text, found)
  if (end === "no") found.arguments("{}")
  if (end !== "cut") found.end()
  yield* text.space()
  yield* text.takes("```")
  yield* text.space()
  yield* text.takes(CALL_END)
}

/** What is before the arguments, after the mark of a call, and after them. */
const forms = {
  old: { head: (name: string) => `function${BETWEEN}${name}\n${FENCE}`, tail: `\n\`\`\`${CALL_END}` },
  new: { head: (name: string) => `${name}${BETWEEN}`, tail: CALL_END },
}

function format(
  name: string,
  { head, tail }: (typeof forms)["old"],
  between: string,
): Omit<ToolFormat, "fits"> {
  const more = between === "" ? "call*" : `(${literal(between)} call)*`
  /** Adds the rules of a call, and of what comes after its mark. */
  const addCalls = (grammar: SchemaGrammar, tools: readonly HeldTool[]) => {
    const bodies = tools.map((tool) => `${literal(head(tool.name))} ${tool.rule} ${literal(tail)}`)
    grammar.rule("call-rest", bodies.join(" | "))
    grammar.rule("call", `${literal(CALL)} call-rest`)
  }
  return {
    ...common,
    name,
    write: (calls) =>
      BEGIN +
      calls.map((one) => CALL + head(one.name) + JSON.stringify(one.arguments) + tail).join(between) +
      END,
    calls(grammar, tools, several) {
      addCalls(grammar, tools)
      return `${literal(BEGIN)} call ${several ? more : ""} ${literal(END)}`
    },
    answer(grammar, tools) {
      addCalls(grammar, tools)
      return freeAnswer(grammar, tools, [
        { mark: BEGIN, after: `call ${more} ${literal(END)}` },
        // Where the first mark was forgotten.
        { mark: CALL, after: `call-rest` },
      ])
    },
  }
}

export const DEEPSEEK_OLD: ToolFormat = {
  ...format("deepseek-old", forms.old, "\n"),
  fits: (template) => template.includes(BEGIN) && template.includes("```json"),
}

export const DEEPSEEK: ToolFormat = {
  ...format("deepseek", forms.new, ""),
  fits: (template) => template.includes(BEGIN) && !template.includes("```json"),
}
