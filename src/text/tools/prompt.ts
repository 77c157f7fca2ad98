/** Tools and calls in a prompt. Templates differ in what they show: each is tried once with a conversation of which all is
 * known. What a template does not show is written into messages, so that tools, calls and results always reach the model. */
import { createHash } from "node:crypto"
import type { ChatMessage, ChatPrompt } from "../chat.ts"
import { withoutSystem } from "../turns.ts"
import type { ToolFormat, WrittenCall } from "./format.ts"
import { GENERIC, nativeFormat } from "./formats.ts"

export type Messages = Pick<ChatPrompt, "messages" | "tools">
/** Runs the template; throws where it refuses. */
export type Run = (prompt: Messages) => string

/** What must be done for a template to show calls. */
interface Ways {
  /** Arguments are JSON text, not objects. */
  text: boolean
  /** A message has one call, and its result follows. */
  single: boolean
  /** A message with calls has no other content. */
  bare: boolean
}

interface Shown {
  /** The template tells the model of its tools. */
  tools: boolean
  /** null: it does not show calls and results, whatever is done. */
  calls: Ways | null
}

export class ToolPrompt {
  readonly #native: ToolFormat | null
  readonly #run: Run
  #shown: Shown | null = null
  #placesSystem: boolean | null = null

  constructor(template: string | null, run: Run) {
    this.#native = nativeFormat(template)
    this.#run = run
  }

  /** The same conversation as the template shows all of it. */
  adapt<T extends Messages>(prompt: T): T {
    const { tools } = prompt
    const hasSystem = prompt.messages.some(({ role }) => role === "system")
    const given = hasSystem && !this.#system ? withoutSystem(prompt.messages) : prompt.messages
    if (tools === null && !given.some(isOfTools)) return { ...prompt, messages: given }
    const shown = (this.#shown ??= this.#look())
    // Calls as the model is told to write them, where its own way is not known here.
    const ways = tools !== null && this.#native === null ? null : shown.calls
    const messages = withIds(given, this.#native?.idLength)
    const adapted = ways === null ? inText(messages, this.#format) : inWays(messages, ways)
    if (tools === null || shown.tools) return { ...prompt, messages: adapted }
    return { ...prompt, tools: null, messages: withInstructions(adapted, this.#told(tools), this.#system) }
  }

  get #format(): ToolFormat {
    return this.#native ?? GENERIC
  }

  /** It has a place for a system message. One that does not show what is said at all is left alone. */
  get #system(): boolean {
    const user = said("user", "Quser")
    const both = { tools: null, messages: [said("system", "Qsystem"), user] }
    this.#placesSystem ??=
      this.#shows(both, ["Qsystem"]) || !this.#shows({ tools: null, messages: [user] }, ["Quser"])
    return this.#placesSystem
  }

  #look(): Shown {
    const asked = { tools: [PROBE_TOOL], messages: [said("user", "Quser")] }
    const tools = this.#native !== null && this.#shows(asked, ["Qtool", "Qparameter"])
    const messages = withIds(PROBE, this.#native?.idLength)
    const probe = (ways: Ways) => ({ messages: inWays(messages, ways), tools: tools ? [PROBE_TOOL] : null })
    const calls = WAYS.find((ways) => this.#shows(probe(ways), PROBE_WORDS))
    return { tools, calls: calls ?? null }
  }

  #shows(prompt: Messages, words: readonly string[]): boolean {
    try {
      const text = this.#run(prompt)
      return words.every((word) => text.includes(word)) && !text.includes("[object ")
    } catch {
      return false
    }
  }

  #told(tools: readonly unknown[]): string {
    const example = this.#format.write([{ name: "function-name", arguments: { argument: "value" } }])
    return `# Tools

You may call functions to answer. They are, each with a JSON schema of its arguments:

<tools>
${tools.map((tool) => JSON.stringify(tool)).join("\n")}
</tools>

To call one, write its name and arguments in this form and nothing after it; the result then comes to you:

${example}`
  }
}

const said = (role: string, content: string): ChatMessage => ({ role, content })
const called = (name: string, value: string, id: string) => ({
  ...{ id, type: "function" },
  function: { name, arguments: { Qargument: value } },
})

const PROBE_TOOL = {
  type: "function",
  function: {
    ...{ name: "Qtool", description: "Qdescription" },
    parameters: {
      type: "object",
      properties: { Qparameter: { type: "string", description: "Q" } },
      required: [],
    },
  },
}
const PROBE: readonly ChatMessage[] = [
  said("user", "Quser"),
  { ...said("assistant", ""), tool_calls: [called("Qone", "Q1", "call_1"), called("Qtwo", "Q2", "call_2")] },
  { ...said("tool", "Qresult1"), name: "Qone", tool_call_id: "call_1" },
  { ...said("tool", "Qresult2"), name: "Qtwo", tool_call_id: "call_2" },
  { ...said("assistant", "Qhere"), tool_calls: [called("Qthree", "Q3", "call_3")] },
  { ...said("tool", "Qresult3"), name: "Qthree", tool_call_id: "call_3" },
]
const PROBE_WORDS = [
  "Qone",
  "Qtwo",
  "Qthree",
  "Q1",
  "Q2",
  "Q3",
  "Qresult1",
  "Qresult2",
  "Qresult3",
  "Qargument",
]
/** What changes least first. */
const WAYS: readonly Ways[] = [false, true].flatMap((bare) =>
  [false, true].flatMap((single) => [false, true].map((text) => ({ bare, single, text }))),
)

function isOfTools({ role, tool_calls }: ChatMessage): boolean {
  return role === "tool" || (tool_calls?.length ?? 0) > 0
}

function inWays(messages: readonly ChatMessage[], { text, single, bare }: Ways): ChatMessage[] {
  const turns = single ? oneCallEach(messages) : messages
  return turns.map((message) => {
    if (!message.tool_calls) return message
    const tool_calls = text ? message.tool_calls.map(withText) : message.tool_calls
    return { ...message, ...(bare && { content: "" }), tool_calls }
  })
}

type Call = NonNullable<ChatMessage["tool_calls"]>[number]

function withText(call: Call): Call {
  const { arguments: given } = call.function
  return {
    ...call,
    function: { ...call.function, arguments: typeof given === "string" ? given : JSON.stringify(given) },
  }
}

/** Each call in a message of its own, before its result. */
function oneCallEach(messages: readonly ChatMessage[]): ChatMessage[] {
  const out: ChatMessage[] = []
  for (let i = 0; i < messages.length; i++) {
    const message = messages[i]!
    const calls = message.tool_calls ?? []
    if (calls.length < 2) {
      out.push(message)
      continue
    }
    const results: ChatMessage[] = []
    while (messages[i + 1]?.role === "tool") results.push(messages[++i]!)
    const rest = new Set(results)
    for (const [n, call] of calls.entries()) {
      const result =
        results.find((one) => one.tool_call_id !== undefined && one.tool_call_id === call.id) ?? results[n]
      out.push({ ...message, content: n === 0 ? message.content : "", tool_calls: [call] })
      if (result !== undefined && rest.delete(result)) out.push(result)
    }
    out.push(...rest)
  }
  return out
}

/** Calls as text of the assistant, and results as text of the user, for templates that know of neither. Turns of one role
 * that follow each other are one: many templates want roles to alternate. */
function inText(messages: readonly ChatMessage[], format: ToolFormat): ChatMessage[] {
  const out: ChatMessage[] = []
  for (const message of messages) {
    const one = asText(message, format)
    const last = out.at(-1)
    if (last?.role === one.role && (one.role === "user" || one.role === "assistant"))
      out[out.length - 1] = { ...last, ...one, content: `${last.content ?? ""}\n${one.content ?? ""}` }
    else out.push(one)
  }
  return out
}

function asText(message: ChatMessage, format: ToolFormat): ChatMessage {
  const { tool_calls: calls, tool_call_id: _, ...rest } = message
  if (message.role === "tool")
    return said("user", `<tool_response>\n${message.content ?? ""}\n</tool_response>`)
  if (!calls || calls.length === 0) return rest
  const written = format.write(calls.map(writtenCall))
  return { ...rest, content: message.content ? `${message.content}\n${written}` : written }
}

function writtenCall({ function: { name, arguments: given } }: Call): WrittenCall {
  const isObject = typeof given === "object" && given !== null && !Array.isArray(given)
  return { name, arguments: isObject ? (given as Record<string, unknown>) : { value: given } }
}

function withInstructions(messages: readonly ChatMessage[], told: string, system: boolean): ChatMessage[] {
  const [first] = messages
  if (first !== undefined && (first.role === "system" || !system))
    return [
      {
        ...first,
        content: `${first.role === "system" ? first.content : told}\n\n${first.role === "system" ? told : first.content}`,
      },
      ...messages.slice(1),
    ]
  return [said("system", told), ...messages]
}

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/** Every call has an id; where the template wants them of one length, of that: others are told by their hash. */
function withIds(messages: readonly ChatMessage[], length: number | undefined): ChatMessage[] {
  const fitting = (id: string) => (length === undefined ? id : hashed(id, length))
  let calls = 0
  return messages.map((message) => ({
    ...message,
    ...(message.tool_calls && {
      tool_calls: message.tool_calls.map((call) => ({ ...call, id: fitting(call.id ?? `call_${calls++}`) })),
    }),
    ...(message.role === "tool" && { tool_call_id: fitting(message.tool_call_id ?? "call_0") }),
  }))
}

function hashed(id: string, length: number): string {
  if (id.length === length && /^[a-zA-Z0-9]+$/.test(id)) return id
  const bytes = createHash("sha256").update(id).digest()
  return Array.from({ length }, (_, i) => LETTERS[bytes[i]! % LETTERS.length]).join("")
}
