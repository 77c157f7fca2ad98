/** JSON Schema to llama.cpp's GBNF: what OpenAI's structured outputs support. A keyword that a grammar cannot keep is
 * refused, never ignored; only annotations are. */
import { UserError } from "../../errors.ts"
import { BASE_RULES, FORMATS, literal } from "./gbnf.ts"

type Schema = Record<string, unknown>

export interface SchemaSource {
  /** For messages: `response_format 'person'`. */
  what: string
  /** The request's field. */
  param: string
}

/** Keywords that restrict nothing. */
const ANNOTATIONS = new Set(
  "title description default examples $schema $id $comment $defs definitions deprecated readOnly writeOnly discriminator".split(
    " ",
  ),
)
const KEYWORDS: Record<string, readonly string[]> = {
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "format"],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  number: ["minimum", "exclusiveMinimum"],
  boolean: [],
  null: [],
}
/** llama.cpp writes repetitions out. */
const MOST_REPETITIONS = 1000
/** Integers between bounds are listed one by one. */
const MOST_INTEGERS = 1000
/** Repetitions and integers of one grammar: half a million took llama.cpp 0.3 s, on the event loop. */
const MOST_WRITTEN_OUT = 100_000
/** Values of enums and members of anyOf of one schema, as OpenAI has it: llama.cpp's time grows with their square. */
const MOST_CHOICES = 1000
const MOST_RULES = 5000
const MOST_DEPTH = 64

/** Collects the rules of one or more schemas; each has a rule of its own. */
export class SchemaGrammar {
  readonly #rules = new Map<string, string>()
  /** Rule of each referenced part of the document at hand. */
  readonly #refs = new Map<string, string>()
  /** Rules that a rule may begin with. */
  readonly #leads = new Map<string, string[]>()
  #source!: SchemaSource
  #document!: Schema
  #names = 0
  #depth = 0
  #choices = 0
  #writtenOut = 0

  /** Name of the rule that matches what the schema allows. Throws UserError for what a grammar cannot keep. */
  add(schema: unknown, source: SchemaSource): string {
    this.#source = source
    if (!isObject(schema)) throw this.#wrong("#", "it must be an object")
    this.#document = schema
    this.#refs.clear()
    this.#choices = 0
    const name = this.#ref("#", "#", null)
    this.#refuseLoops()
    return name
  }

  /** A rule of one's own. */
  rule(name: string, body: string): void {
    if (this.#rules.size >= MOST_RULES) throw this.#wrong("#", "it is too large")
    this.#rules.set(name, body)
  }

  /** The whole grammar; `root` is the body of its first rule. */
  text(root: string): string {
    const rules = [`root ::= ${root}`, ...[...this.#rules].map(([name, body]) => `${name} ::= ${body}`)]
    return `${rules.join("\n")}\n${BASE_RULES}`
  }

  /** Body of the rule for one schema. `start`: the rule that begins with it, or null inside an object or array. */
  #body(schema: unknown, at: string, start: string | null): string {
    if (schema === true) return "value"
    if (!isObject(schema)) throw this.#wrong(at, "a schema must be an object")
    if (++this.#depth > MOST_DEPTH) throw this.#wrong(at, `schemas may be nested ${MOST_DEPTH} deep`)
    try {
      return this.#combined(schema, at, start)
    } finally {
      this.#depth--
    }
  }

  #combined(schema: Schema, at: string, start: string | null): string {
    if ("$ref" in schema) {
      this.#only(schema, at, ["$ref"])
      return this.#ref(schema.$ref, at, start)
    }
    for (const key of ["anyOf", "oneOf", "allOf"] as const) {
      if (!(key in schema)) continue
      this.#only(schema, at, [key])
      const choices = schema[key]
      if (!Array.isArray(choices) || choices.length === 0)
        throw this.#wrong(at, `${key} must be a list of schemas`)
      if (key === "allOf" && choices.length > 1) throw this.#unsupported(at, "allOf of several schemas")
      this.#countChoices(choices.length, at)
      return alternatives(choices.map((choice, i) => this.#body(choice, `${at}/${key}/${i}`, start)))
    }
    if ("const" in schema || "enum" in schema) return this.#values(schema, at)
    const types = this.#types(schema, at)
    if (types === null) return "value"
    const allowed = types.flatMap((type) => KEYWORDS[type]!)
    this.#only(schema, at, ["type", ...allowed])
    return alternatives(types.map((type) => this.#typed(type, schema, at)))
  }

  #typed(type: string, schema: Schema, at: string): string {
    if (type === "object") return this.#object(schema, at)
    if (type === "array") return this.#array(schema, at)
    if (type === "string") return this.#string(schema, at)
    if (type === "integer") return this.#integer(schema, at)
    if (type === "number") return this.#number(schema, at)
    return type
  }

  /** null: anything goes. */
  #types(schema: Schema, at: string): string[] | null {
    const { type } = schema
    if (type === undefined) {
      const implied = Object.keys(KEYWORDS).filter((t) => KEYWORDS[t]!.some((keyword) => keyword in schema))
      if (implied.length > 0) return implied.slice(0, 1)
      this.#only(schema, at, [])
      return null
    }
    const types = Array.isArray(type) ? type : [type]
    const wrong = types.find((t) => typeof t !== "string" || !Object.hasOwn(KEYWORDS, t))
    if (types.length > 0 && wrong === undefined) return [...new Set(types as string[])]
    throw this.#wrong(at, `there is no type ${JSON.stringify(wrong ?? type)}`)
  }

  #values(schema: Schema, at: string): string {
    this.#only(schema, at, ["type", "const", "enum"])
    const values = "const" in schema ? [schema.const] : schema.enum
    if (!Array.isArray(values) || values.length === 0) throw this.#wrong(at, "enum must be a list of values")
    const types = schema.type === undefined ? null : this.#types(schema, at)
    const fitting = values.filter((value) => types?.some((type) => hasType(value, type)) ?? true)
    if (fitting.length === 0) throw this.#wrong(at, "no value of enum has the type")
    this.#countChoices(fitting.length, at)
    return alternatives(fitting.map((value) => literal(JSON.stringify(value))))
  }

  #object(schema: Schema, at: string): string {
    const properties = schema.properties ?? {}
    if (!isObject(properties)) throw this.#wrong(at, "properties must be an object")
    const names = Object.keys(properties)
    const required = schema.required ?? []
    if (!Array.isArray(required)) throw this.#wrong(at, "required must be a list of names")
    const missing = required.find((name) => typeof name !== "string" || !Object.hasOwn(properties, name))
    if (missing !== undefined) throw this.#wrong(at, `required names ${JSON.stringify(missing)}, no property`)
    const members = names.map((name) => {
      const body = this.#body(properties[name], `${at}/properties/${name}`, null)
      return {
        rule: this.#named("kv", `${literal(JSON.stringify(name))} ws ":" ws ${group(body)} ws`),
        required: required.includes(name),
      }
    })
    return this.#members(members, this.#more(schema, at, names.length === 0))
  }

  /** The rule of members that are not declared, or null where there may be none. Nothing declared: anything. */
  #more(schema: Schema, at: string, bare: boolean): string | null {
    const more = schema.additionalProperties ?? bare
    if (more === false) return null
    const body = this.#body(more, `${at}/additionalProperties`, null)
    return this.#named("kv", `string ws ":" ws ${group(body)} ws`)
  }

  /** Members in the order of declaration, optional ones or not; `rest` matches what follows a first member. */
  #members(members: readonly { rule: string; required: boolean }[], more: string | null): string {
    const first: string[] = []
    let rest = more === null ? "" : ` ("," ws ${more})*`
    if (more !== null && members.every((member) => !member.required)) first.push(`${more}${rest}`)
    for (let i = members.length - 1; i >= 0; i--) {
      const { rule, required } = members[i]!
      if (members.slice(0, i).every((member) => !member.required)) first.unshift(`${rule}${rest}`)
      const next = `("," ws ${rule})${required ? "" : "?"}${rest}`
      rest = i === 0 ? "" : ` ${this.#named("rest", next)}`
    }
    const optional = members.every((member) => !member.required)
    if (first.length === 0) return `"{" ws "}"`
    return `"{" ws (${first.join(" | ")})${optional ? "?" : ""} "}"`
  }

  #array(schema: Schema, at: string): string {
    const fixed = schema.prefixItems ?? []
    if (!Array.isArray(fixed)) throw this.#wrong(at, "prefixItems must be a list of schemas")
    if (fixed.length > 0) return this.#tuple(schema, fixed, at)
    const min = this.#count(schema, "minItems", at) ?? 0
    const max = this.#count(schema, "maxItems", at)
    if (max !== null && max < min) throw this.#wrong(at, "maxItems is less than minItems")
    if (max === 0) return `"[" ws "]"`
    const body = this.#body(schema.items ?? true, `${at}/items`, null)
    const item = this.#named("item", `${group(body)} ws`)
    const more = `("," ws ${item}){${Math.max(0, min - 1)},${max === null ? "" : max - 1}}`
    return `"[" ws (${item} ${more})${min === 0 ? "?" : ""} "]"`
  }

  #tuple(schema: Schema, fixed: readonly unknown[], at: string): string {
    if ((schema.items ?? false) !== false) throw this.#unsupported(at, "items beside prefixItems")
    for (const key of ["minItems", "maxItems"])
      if ((schema[key] ?? fixed.length) !== fixed.length)
        throw this.#unsupported(at, `${key} other than the number of prefixItems`)
    const items = fixed.map((item, i) => group(this.#body(item, `${at}/prefixItems/${i}`, null)))
    return `"[" ws ${items.join(` ws "," ws `)} ws "]"`
  }

  #string(schema: Schema, at: string): string {
    const min = this.#count(schema, "minLength", at)
    const max = this.#count(schema, "maxLength", at)
    if (schema.format !== undefined) {
      const format = typeof schema.format === "string" ? FORMATS[schema.format] : undefined
      if (format === undefined || min !== null || max !== null)
        throw this.#unsupported(
          at,
          `format ${JSON.stringify(schema.format)}${format ? " with a length" : ""}`,
        )
      return `"\\"" ${group(format)} "\\""`
    }
    if (min === null && max === null) return "string"
    if (max !== null && max < (min ?? 0)) throw this.#wrong(at, "maxLength is less than minLength")
    return `"\\"" char{${min ?? 0},${max ?? ""}} "\\""`
  }

  #integer(schema: Schema, at: string): string {
    const least = this.#bound(schema, "minimum", "exclusiveMinimum", 1, at)
    const most = this.#bound(schema, "maximum", "exclusiveMaximum", -1, at)
    if (least === null && most === null) return "integer"
    if (least !== null && most !== null) {
      if (most < least) throw this.#wrong(at, "no integer is within the bounds")
      this.#countWrittenOut(Math.min(most - least, MOST_INTEGERS), at)
      if (most - least < MOST_INTEGERS)
        return alternatives(Array.from({ length: most - least + 1 }, (_, i) => literal(String(least + i))))
    } else if (least === 0) return "natural"
    else if (least === 1) return "positive"
    throw this.#unsupported(at, `a range of integers other than ≥ 0, ≥ 1 or at most ${MOST_INTEGERS} long`)
  }

  #number(schema: Schema, at: string): string {
    const { minimum, exclusiveMinimum } = schema
    if (minimum === undefined && exclusiveMinimum === undefined) return "number"
    if (minimum === 0 && exclusiveMinimum === undefined) return "magnitude"
    throw this.#unsupported(at, "a bound of numbers other than minimum 0")
  }

  #bound(schema: Schema, inclusive: string, exclusive: string, step: number, at: string): number | null {
    const values = [schema[inclusive], schema[exclusive]]
    const bounds = values.map((value, i) => {
      if (value === undefined || value === null) return null
      if (typeof value !== "number" || !Number.isFinite(value))
        throw this.#wrong(at, "bounds must be numbers")
      const whole = step > 0 ? Math.ceil(value) : Math.floor(value)
      return i === 1 && whole === value ? whole + step : whole
    })
    const [a, b] = bounds as [number | null, number | null]
    if (a === null || b === null) return a ?? b
    return step > 0 ? Math.max(a, b) : Math.min(a, b)
  }

  #count(schema: Schema, key: string, at: string): number | null {
    const value = schema[key]
    if (value === undefined || value === null) return null
    if (!Number.isInteger(value) || (value as number) < 0) throw this.#wrong(at, `${key} must be a count`)
    if ((value as number) > MOST_REPETITIONS) throw this.#unsupported(at, `${key} above ${MOST_REPETITIONS}`)
    this.#countWrittenOut(value as number, at)
    return value as number
  }

  #countChoices(count: number, at: string): void {
    this.#choices += count
    if (this.#choices > MOST_CHOICES) throw this.#wrong(at, `it has more than ${MOST_CHOICES} choices`)
  }

  #countWrittenOut(count: number, at: string): void {
    this.#writtenOut += count
    if (this.#writtenOut > MOST_WRITTEN_OUT)
      throw this.#wrong(at, `its repetitions come to more than ${MOST_WRITTEN_OUT}`)
  }

  /** The rule of a part of the document, made once: recursive schemas refer to it by name. */
  #ref(pointer: unknown, at: string, start: string | null): string {
    if (typeof pointer !== "string" || !/^#($|\/)/.test(pointer))
      throw this.#unsupported(at, `$ref ${JSON.stringify(pointer)}, not to a part of the schema itself,`)
    let name = this.#refs.get(pointer)
    if (name === undefined) {
      const target = this.#at(pointer, at)
      name = `ref-${this.#names++}`
      this.#refs.set(pointer, name)
      this.rule(name, this.#body(target, pointer, name))
    }
    if (start !== null) this.#leads.set(start, [...(this.#leads.get(start) ?? []), name])
    return name
  }

  /** A rule that begins with itself never ends, and llama.cpp refuses it. */
  #refuseLoops(): void {
    const state = new Map<string, "open" | "done">()
    const visit = (rule: string): void => {
      if (state.get(rule) === "done") return
      if (state.get(rule) === "open") throw this.#wrong("#", "a $ref leads back to itself")
      state.set(rule, "open")
      for (const next of this.#leads.get(rule) ?? []) visit(next)
      state.set(rule, "done")
    }
    for (const rule of this.#leads.keys()) visit(rule)
  }

  #at(pointer: string, at: string): unknown {
    let found: unknown = this.#document
    for (const part of pointer.split("/").slice(1)) {
      const key = unescaped(part)
      if (key === null || typeof found !== "object" || found === null || !Object.hasOwn(found, key))
        throw this.#wrong(at, `$ref ${JSON.stringify(pointer)} leads nowhere`)
      found = (found as Schema)[key]
    }
    return found
  }

  #named(stem: string, body: string): string {
    const name = `${stem}-${this.#names++}`
    this.rule(name, body)
    return name
  }

  #only(schema: Schema, at: string, allowed: readonly string[]): void {
    const other = Object.keys(schema).find((key) => !allowed.includes(key) && !ANNOTATIONS.has(key))
    if (other !== undefined) throw this.#unsupported(at, `"${other.slice(0, 40)}"`)
  }

  #unsupported(at: string, what: string): UserError {
    return this.#wrong(at, `${what} is not supported here`)
  }

  #wrong(at: string, why: string): UserError {
    const { what, param } = this.#source
    return new UserError(`Invalid schema for ${what}: at ${at.slice(0, 200)}, ${why}.`, {
      code: "invalid_json_schema",
      param,
    })
  }
}

/** A step of a JSON pointer in a URI, or null where it is none. */
function unescaped(part: string): string | null {
  try {
    return decodeURIComponent(part).replace(/~1/g, "/").replace(/~0/g, "~")
  } catch {
    return null
  }
}

function isObject(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function hasType(value: unknown, type: string): boolean {
  if (type === "null") return value === null
  if (type === "array") return Array.isArray(value)
  if (type === "object") return isObject(value)
  if (type === "integer") return Number.isInteger(value)
  return typeof value === type
}

function alternatives(bodies: readonly string[]): string {
  const distinct = [...new Set(bodies)]
  return distinct.length === 1 ? distinct[0]! : `(${distinct.join(" | ")})`
}

function group(body: string): string {
  return /^[\w-]+$/.test(body) ? body : `(${body})`
}
