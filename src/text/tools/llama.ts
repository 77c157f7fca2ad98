/** The answer is one call as JSON, `{"name": …, "parameters": {…}}`: Llama 3.x. */
import { callBody, writtenBody } from "./bodies.ts"
import type { ToolFormat } from "./format.ts"
import { freeAnswer } from "./held.ts"
import { bareCalls, jsonCall, moreCalls } from "./json-call.ts"

const TAG = "<|python_tag|>"

export const LLAMA: ToolFormat = {
  name: "llama",
  fits: (template) => template.includes('{"name": function name, "parameters": dictionary'),

  *read(text, found, context) {
    yield* bareCalls(text, found, context)
    while ((yield* text.until([TAG], (content) => found.content(content))) !== null) {
      text.keep()
      const end = yield* jsonCall(text, found)
      if (end === "none") {
        text.back()
        found.content(TAG)
      } else {
        text.forget()
        yield* moreCalls(text, found, {}, ";")
      }
    }
  },

  write: (calls) => calls.map((call) => writtenBody(call, "parameters")).join("; "),

  calls(grammar, tools, several) {
    grammar.rule("call", tools.map((tool) => callBody(tool, "parameters")).join(" | "))
    return several ? `call ("; " call)*` : "call"
  },

  // Calls end its turn: no text follows them.
  answer(grammar, tools) {
    return freeAnswer(grammar, tools, [{ mark: TAG, after: this.calls(grammar, tools, true), last: true }])
  },
}
