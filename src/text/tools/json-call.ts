/** Calls as JSON: an object with a name and arguments, or arguments alone. */
import type { ReadContext } from "./format.ts"
import { JsonScan } from "./json-scan.ts"
import type { Found } from "./parts.ts"
import type { Reading, Taken, Unread } from "./unread.ts"

/** `call`: it has begun, whatever came after. `none`: it was none, and nothing was told. */
export type CallEnd = "call" | "none" | "cut"

const ARGUMENTS = new Set(["arguments", "parameters"])
/** What a call may have besides, that says nothing. */
const BESIDES = new Set(["id", "type", "call_id"])

/** Gives out one JSON value, mended, as it comes. `no`: it is none. */
export function* jsonValue(text: Unread, tell: (part: string) => void): Reading<Taken> {
  const scan = new JsonScan()
  for (;;) {
    let part = ""
    while (text.here !== null && !scan.done && !scan.bad) {
      const more = scan.take(text.here)
      if (more === null) break
      part += more
      text.skip()
    }
    if (part !== "") tell(part)
    if (scan.done) return "yes"
    if (scan.bad) return "no"
    if ((yield* text.peek()) === null) return scan.finish() ? "yes" : "cut"
  }
}

function* wholeValue(text: Unread): Reading<string | Exclude<Taken, "yes">> {
  let whole = ""
  const end = yield* jsonValue(text, (part) => {
    whole += part
  })
  return end === "yes" ? whole : end
}

/** The arguments of a call that has begun: an object as it comes. An object written as a string is what it says; null and
 * nothing are no arguments. `no`: they are none of these, and nothing was told. */
export function* jsonArguments(text: Unread, found: Found): Reading<Taken> {
  yield* text.space()
  const first = yield* text.peek()
  if (first === null) return "cut"
  if (first === "{") {
    const end = yield* jsonValue(text, (part) => found.arguments(part))
    if (end === "no") yield* rest(text, found)
    return end === "no" ? "yes" : end
  }
  const value = yield* wholeValue(text)
  if (value === "no" || value === "cut") return value
  const object = objectIn(value)
  if (object === null) return "no"
  found.arguments(object)
  return "yes"
}

/** What is no JSON any more is told as it is up to the end of its line: the client's parser says what is wrong with it. */
function* rest(text: Unread, found: Found): Reading {
  for (let c = yield* text.peek(); c !== null && c !== "\n" && c !== "<"; c = yield* text.peek()) {
    found.arguments(c)
    text.skip()
  }
}

/** The object that a value stands for, as JSON text, or null where it stands for none. */
function objectIn(value: string): string | null {
  const parsed: unknown = JSON.parse(value)
  if (parsed === null || parsed === "") return "{}"
  if (typeof parsed !== "string") return null
  try {
    const inside: unknown = JSON.parse(parsed)
    if (inside === null) return "{}"
    return typeof inside === "object" && !Array.isArray(inside) ? parsed : null
  } catch {
    return null
  }
}

interface Begun {
  name: string | null
  /** Arguments that came before the name. */
  early: string | null
  called: boolean
}

export interface CallRules {
  /** The only tools that count, and no other keys do; left out: any. */
  names?: ReadonlySet<string>
}

/** One call as an object: `{"name": …, "arguments": {…}}`. White space before it is skipped. */
export function* jsonCall(text: Unread, found: Found, rules: CallRules = {}): Reading<CallEnd> {
  const begun: Begun = { name: null, early: null, called: false }
  yield* text.space()
  if ((yield* text.peek()) === null) return "cut"
  if ((yield* text.takes("{")) !== "yes") return "none"
  const end = yield* members(text, found, begun, rules)
  if (end === "yes" && !begun.called && begun.name !== null) {
    begin(text, found, begun)
    found.arguments(begun.early ?? "{}")
  }
  if (begun.called) {
    if (end !== "cut") found.end()
    return "call"
  }
  return end === "cut" ? "cut" : "none"
}

/** What was kept, in case that it is no call, is not needed any more. */
function begin(text: Unread, found: Found, begun: Begun): void {
  text.forget()
  found.begin(begun.name!)
  begun.called = true
}

function* members(text: Unread, found: Found, begun: Begun, rules: CallRules): Reading<Taken> {
  for (let first = true; ; first = false) {
    yield* text.space()
    const c = yield* text.peek()
    if (c === null) return "cut"
    if (c === "}") {
      text.skip()
      return "yes"
    }
    if (!first) {
      if (c !== ",") return "no"
      text.skip()
      yield* text.space()
    }
    const end = yield* member(text, found, begun, rules)
    if (end !== "yes") return end
  }
}

function* member(text: Unread, found: Found, begun: Begun, { names }: CallRules): Reading<Taken> {
  const key = yield* string(text)
  if (typeof key !== "object") return key
  yield* text.space()
  const colon = yield* text.takes(":")
  if (colon !== "yes") return colon
  yield* text.space()
  if (key.text === "name" && begun.name === null) {
    const name = yield* string(text)
    if (typeof name !== "object") return name
    if (name.text === "" || (names !== undefined && !names.has(name.text))) return "no"
    begun.name = name.text
    return "yes"
  }
  if (ARGUMENTS.has(key.text) && !begun.called && begun.early === null)
    return yield* argumentsOf(text, found, begun)
  if (names !== undefined && !BESIDES.has(key.text)) return "no"
  const value = yield* wholeValue(text)
  return value === "no" || value === "cut" ? value : "yes"
}

/** They are told at once where the name is known. */
function* argumentsOf(text: Unread, found: Found, begun: Begun): Reading<Taken> {
  if (begun.name !== null && (yield* text.peek()) === "{") {
    begin(text, found, begun)
    return yield* jsonArguments(text, found)
  }
  const value = yield* wholeValue(text)
  if (value === "no" || value === "cut") return value
  begun.early = value.startsWith("{") ? value : objectIn(value)
  return begun.early === null ? "no" : "yes"
}

function* string(text: Unread): Reading<{ text: string } | Exclude<Taken, "yes">> {
  const first = yield* text.peek()
  if (first === null) return "cut"
  if (first !== '"') return "no"
  const value = yield* wholeValue(text)
  return value === "no" || value === "cut" ? value : { text: JSON.parse(value) as string }
}

const NAMED = /^\s*\[?\s*\{\s*"name"/

/** An answer that is nothing but a call of a given tool, or a list of such calls. Of anything else nothing is taken. */
export function* bareCalls(text: Unread, found: Found, context: ReadContext): Reading {
  if (!context.bare) return
  const { names } = context
  const call = () => (context.held ? heldCall(text, found, names) : jsonCall(text, found, { names }))
  text.keep()
  yield* text.space()
  const first = yield* text.peek()
  const list = first === "["
  if (list) {
    text.skip()
    yield* text.space()
  }
  const end = first === "{" || list ? yield* call() : "none"
  if (end !== "call") {
    // Cut off in a name: nothing of it is worth showing.
    if (end === "none" || !NAMED.test(text.kept)) text.back()
    return
  }
  yield* callsAfter(text, list ? "," : ";", call)
  if (list) yield* text.takes("]")
}

/** A call in the form in which grammars hold bare ones (held.ts), and in no other. */
function* heldCall(text: Unread, found: Found, names: ReadonlySet<string>): Reading<CallEnd> {
  for (const one of ["{", '"name"', ":"]) {
    const taken = yield* word(text, one)
    if (taken !== "yes") return taken
  }
  const name = yield* wholeValue(text)
  if (name === "cut") return "cut"
  const called = [...names].find((one) => JSON.stringify(one) === name)
  if (called === undefined) return "none"
  yield* text.space()
  const comma = yield* word(text, ",")
  if (comma !== "yes") return comma
  const given = yield* text.takes('"arguments"')
  const key = given === "no" ? yield* text.takes('"parameters"') : given
  if (key !== "yes") return key === "no" ? "none" : "cut"
  yield* text.space()
  const colon = yield* word(text, ":")
  if (colon !== "yes") return colon
  text.forget()
  found.begin(called)
  const end = yield* jsonArguments(text, found)
  yield* text.space()
  if (end !== "cut" && (yield* text.takes("}")) === "yes") found.end()
  return "call"
}

/** Takes a word and the space after it. */
function* word(text: Unread, what: string): Reading<"yes" | "none" | "cut"> {
  const taken = yield* text.takes(what)
  if (taken === "yes") yield* text.space()
  return taken === "no" ? "none" : taken
}

/** Calls after the first of a list. */
export function moreCalls(text: Unread, found: Found, rules: CallRules, between: string): Reading {
  return callsAfter(text, between, () => jsonCall(text, found, rules))
}

function* callsAfter(text: Unread, between: string, call: () => Reading<CallEnd>): Reading {
  for (;;) {
    yield* text.space()
    if ((yield* text.takes(between)) !== "yes") return
    yield* text.space()
    if ((yield* call()) !== "call") return
  }
}
