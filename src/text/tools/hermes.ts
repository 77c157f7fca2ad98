/** `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, and all that are told to. */
import type { SchemaGrammar } from "../constraint/json-schema.ts"
import { callBody, writtenBody } from "./bodies.ts"
import type { HeldTool, ToolFormat } from "./format.ts"
import { freeAnswer } from "./held.ts"
import { bareCalls, jsonCall } from "./json-call.ts"

const OPEN = "<tool_call>"
const CLOSE = "</tool_call>"

export const HERMES: ToolFormat = {
  name: "hermes",
  fits: (template) =>
    template.includes(OPEN) &&
    /["']arguments\\?["']|\.arguments/.test(template) &&
    !/<arg_key>|<function=/.test(template),

  *read(text, found, context) {
    yield* bareCalls(text, found, context)
    while ((yield* text.until([OPEN], (content) => found.content(content))) !== null) {
      text.keep()
      const end = yield* jsonCall(text, found)
      if (end === "none") {
        text.back()
        found.content(OPEN)
        continue
      }
      text.forget()
      // Some write a brace too many.
      do yield* text.space()
      while ((yield* text.takes("}")) === "yes")
      yield* text.takes(CLOSE)
    }
  },

  write: (calls) => calls.map((call) => `${OPEN}\n${writtenBody(call, "arguments")}\n${CLOSE}`).join("\n"),

  calls(grammar, tools, several) {
    grammar.rule("call", `"${OPEN}" ${afterOpen(grammar, tools)}`)
    return several ? `call ("\\n" call)*` : "call"
  },

  answer: (grammar, tools) =>
    freeAnswer(grammar, tools, [{ mark: OPEN, after: `${afterOpen(grammar, tools)}` }]),
}

/** A call after its first mark. */
export function afterOpen(grammar: SchemaGrammar, tools: readonly HeldTool[]): string {
  const bodies = tools.map((tool) => callBody(tool, "arguments"))
  return grammar.named("call", `"\\n" (${bodies.join(" | ")}) "\\n${CLOSE}"`)
}
