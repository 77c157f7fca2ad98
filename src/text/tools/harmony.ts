/** Messages in channels: thoughts, calls and the answer each are one (gpt-oss).
 *
 * `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.name json<|message|>{…}<|call|>` */
import { held } from "../../engine/constraint/zones.ts"
import { alternatives, group, literal } from "../constraint/ebnf.ts"
import type { SchemaGrammar } from "../constraint/json-schema.ts"
import type { HeldAnswer, HeldTool, ToolFormat } from "./format.ts"
import { jsonArguments } from "./json-call.ts"
import type { Found } from "./parts.ts"
import type { Reading, Unread } from "./unread.ts"

const START = "<|start|>"
const CHANNEL = "<|channel|>"
const MESSAGE = "<|message|>"
/** What ends a message; a start that comes without ends it, too. */
const ENDS = ["<|end|>", "<|call|>", "<|return|>", START]
const RECIPIENT = /to=(?:functions\.)?([\w.-]+)/

export const HARMONY: ToolFormat = {
  name: "harmony",
  thinks: true,
  fits: (template) => [START, CHANNEL, MESSAGE].every((mark) => template.includes(mark)),

  *read(text, found, { tools }) {
    // The prompt ends in the start of a message: its header comes first.
    for (let opened = false; ; ) {
      const header: string = yield* headerOf(text, opened)
      if (header === "cut") return
      const end: string | null = yield* message(text, found, header, tools.length > 0)
      if (end === null) return
      opened = end === START || (yield* text.takes(START)) === "yes"
    }
  },

  write: (calls) =>
    calls
      .map(
        ({ name, arguments: given }) =>
          `${CHANNEL}commentary to=functions.${name} <|constrain|>json${MESSAGE}${JSON.stringify(given)}<|call|>`,
      )
      .join(`${START}assistant`),

  calls(grammar, tools) {
    // Its calls end its turn: there is one.
    const bodies = tools.map(({ name, rule }) => {
      const head = `${CHANNEL}commentary to=functions.${name} <|constrain|>json${MESSAGE}`
      return `${literal(head)} ${rule}`
    })
    grammar.rule("call", bodies.join(" | "))
    const thoughts = `${literal(`${CHANNEL}analysis${MESSAGE}`)} analysis ${literal(`${START}assistant`)}`
    // Anything to the first mark that ends a message. One rule a state, for the reason in ebnf.ts.
    grammar.rule("analysis", `[^<\\x01] analysis | "<" analysis-lt`)
    grammar.rule("analysis-lt", `"<" analysis-lt | [^<|\\x01] analysis | "|" analysis-end`)
    grammar.rule("analysis-end", `"<" analysis-lt | [^<e\\x01] analysis | "end|>"`)
    return `(${thoughts})? call`
  },

  answer: messages,
}

/** Messages of any kind; a header that names a recipient names a tool, and its message is that tool's arguments. */
function messages(grammar: SchemaGrammar, tools: readonly HeldTool[]): HeldAnswer {
  const [start, header, message] = [0, 1, 2]
  const channels = alternatives(["commentary", "analysis"].map((name) => literal(CHANNEL + name)))
  const kind = `(" json" | " "? ${literal("<|constrain|>json")} " "?)`
  grammar.rule("to-tool", `${group(channels)}? ${kind}? ${literal(MESSAGE)}`)
  const calls = alternatives(tools.map(({ name, rule }) => `${literal(name)} to-tool ${rule}`))
  return {
    parts: [`"functions."? ${calls}`],
    zones: {
      from: start,
      zones: [
        { calm: false, until: [], lead: { first: ["< ", header], calls: [], names: [], to: message } },
        {
          calm: false,
          until: [
            [MESSAGE, message],
            ["\n", message],
            ["to=", held(0)],
          ],
        },
        { calm: true, until: ENDS.map((mark) => [mark, mark === START ? header : start] as const) },
      ],
      parts: [message],
    },
  }
}

/** What is before a message; "": the text has none, it is content. */
function* headerOf(text: Unread, opened: boolean): Reading<string> {
  const first = yield* text.peek()
  if (first === null) return "cut"
  if (!opened && first !== "<" && first !== " ") return ""
  text.keep()
  let header = ""
  const end = yield* text.until([MESSAGE, "\n"], (part) => (header += part))
  if (end === MESSAGE && (header.includes(CHANNEL) || header.includes("to="))) {
    text.forget()
    return header
  }
  if (end === null && (opened || header.trimStart().startsWith("<"))) return "cut"
  text.back()
  return ""
}

/** Its text, and the mark that ends it; null: the text ended in it. Where no tool may be called, what was meant for one is text. */
function* message(text: Unread, found: Found, header: string, callsTools: boolean): Reading<string | null> {
  const recipient = RECIPIENT.exec(header)?.[1]
  if (recipient !== undefined && callsTools) {
    found.begin(recipient)
    const end = yield* jsonArguments(text, found)
    if (end === "no") found.arguments("{}")
    if (end !== "cut") found.end()
    return yield* text.until(ENDS, () => {})
  }
  const thinks = header.includes(`${CHANNEL}analysis`)
  return yield* text.until(ENDS, (part) => (thinks ? found.reasoning(part) : found.content(part)))
}
