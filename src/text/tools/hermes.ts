/** `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, and all that are told to. */
import { callBody, writtenBody } from "./bodies.ts"
import type { ToolFormat } from "./format.ts"
import { bareCalls, jsonCall } from "./json-call.ts"

const OPEN = "<tool_call>"
const CLOSE = "</tool_call>"

export const HERMES: ToolFormat = {
  name: "hermes",
  fits: (template) =>
    template.includes(OPEN) &&
    /["']arguments\\?["']|\.arguments/.test(template) &&
    !/<arg_key>|<function=/.test(template),

  *read(text, found, { names, bare }) {
    if (bare) yield* bareCalls(text, found, names)
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
    const bodies = tools.map((tool) => callBody(grammar, tool, "arguments"))
    grammar.rule("call", `"${OPEN}\\n" (${bodies.join(" | ")}) "\\n${CLOSE}"`)
    return several ? `call ("\\n" call)*` : "call"
  },
}
