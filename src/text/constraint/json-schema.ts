/** JSON Schema to XGrammar's EBNF: what OpenAI's structured outputs support. A keyword that a grammar cannot keep is
 * refused, never ignored; only annotations are. (XGrammar has such a translation, too; it ignores `allOf`, `not`, and
 * `uniqueItems`, lets 1.9 pass `maximum: 1` and control characters pass `maxLength`, and takes seconds for lengths.) */
import { type Bounds, boundsHeader, MOST_BOUNDS, markOf } from "../../engine/constraint/counted.ts"
import { type UserError, userError } from "../../errors.ts"
import { alternatives, BASE_RULES, FORMATS, group, literal } from "./ebnf.ts"
import { rangeGrammar } from "./ranges.ts"
import { isObject, type Schema, SchemaSize } from "./schema-size.ts"

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
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  boolean: [],
  null: [],
}
/** Of one array. */
const MOST_ITEMS = 1000
/** Of one grammar. */
const MOST_ITEMS_IN_ALL = 10_000
const MOST_LENGTH = 1_000_000
const LARGEST_BOUND = 1e15
/** Values of enums and members of anyOf of one schema. */
const MOST_CHOICES = 5000
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
  #items = 0
  readonly #size = new SchemaSize()
  /** Of strings. */
  readonly #lengths: Bounds[] = []

  /** Name of the rule that matches what the schema allows. Throws UserError for what a grammar cannot keep. */
  add(schema: unknown, source: SchemaSource): string {
    this.#source = source
    if (!isObject(schema)) throw this.#wrong("#", "it must be an object")
    const fault = this.#size.fault(schema)
    if (fault !== null) throw this.#wrong("#", fault)
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
    return `${boundsHeader(this.#lengths)}${rules.join("\n")}\n${BASE_RULES}`
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
    const needed = new Set(required)
    const missing = required.find((name) => typeof name !== "string" || !Object.hasOwn(properties, name))
    if (missing !== undefined) throw this.#wrong(at, `required names ${JSON.stringify(missing)}, no property`)
    const members = names.map((name) => {
      const body = this.#body(properties[name], `${at}/properties/${name}`, null)
      return {
        rule: this.#named("kv", `${literal(JSON.stringify(name))} ws ":" ws ${group(body)} ws`),
        required: needed.has(name),
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
    const min = this.#itemCount(schema, "minItems", at) ?? 0
    const max = this.#itemCount(schema, "maxItems", at)
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
    const min = this.#count(schema, "minLength", at, MOST_LENGTH)
    const max = this.#count(schema, "maxLength", at, MOST_LENGTH)
    if (schema.format !== undefined) {
      const format = typeof schema.format === "string" ? ownFormat(schema.format) : undefined
      if (format === undefined || min !== null || max !== null)
        throw this.#unsupported(
          at,
          `format ${JSON.stringify(schema.format)}${format ? " with a length" : ""}`,
        )
      const mark = format.max === undefined ? "" : this.#mark({ min: 0, max: format.max }, at)
      return `"\\"" ${mark} ${group(format.body)} "\\""`
    }
    if (max !== null && max < (min ?? 0)) throw this.#wrong(at, "maxLength is less than minLength")
    if ((min ?? 0) === 0 && max === null) return "string"
    return `"\\"" ${this.#mark({ min: min ?? 0, max: max ?? Infinity }, at)} chars`
  }

  /** What stands behind the opening quotation mark of a string of bounded length. */
  #mark(bounds: Bounds, at: string): string {
    let index = this.#lengths.findIndex(({ min, max }) => min === bounds.min && max === bounds.max)
    if (index < 0) index = this.#lengths.push(bounds) - 1
    if (index >= MOST_BOUNDS)
      throw this.#wrong(at, `it has more than ${MOST_BOUNDS} different lengths of strings`)
    return literal(markOf(index))
  }

  #integer(schema: Schema, at: string): string {
    return this.#between(schema, at, true) ?? "integer"
  }

  #number(schema: Schema, at: string): string {
    return this.#between(schema, at, false) ?? "number"
  }

  /** The rule of a range, or null where there are no bounds. */
  #between(schema: Schema, at: string, whole: boolean): string | null {
    const min = this.#bound(schema, "minimum", "exclusiveMinimum", 1, at)
    const max = this.#bound(schema, "maximum", "exclusiveMaximum", -1, at)
    if (min === null && max === null) return null
    if (max === null && min!.value === 0 && !min!.out) return whole ? "natural" : "magnitude"
    const range = {
      ...{ min: min?.value ?? null, minOut: min?.out ?? false },
      ...{ max: max?.value ?? null, maxOut: max?.out ?? false },
    }
    const grammar = rangeGrammar(range, whole)
    if (grammar === null)
      throw this.#wrong(at, `no ${whole ? "integer" : "number of six decimals"} is within the bounds`)
    return `(${grammar})`
  }

  /** The stricter of a bound that is in the range and one that is not. */
  #bound(
    schema: Schema,
    inclusive: string,
    exclusive: string,
    sign: 1 | -1,
    at: string,
  ): { value: number; out: boolean } | null {
    const given = [inclusive, exclusive].flatMap((key) => {
      const value = schema[key] ?? null
      if (value === null) return []
      if (typeof value !== "number" || !Number.isFinite(value))
        throw this.#wrong(at, "bounds must be numbers")
      if (Math.abs(value) >= LARGEST_BOUND) throw this.#unsupported(at, `${key} beyond ${LARGEST_BOUND}`)
      return [{ value, out: key === exclusive }]
    })
    return given.reduce<{ value: number; out: boolean } | null>((strictest, bound) => {
      if (strictest === null) return bound
      const further = sign * (bound.value - strictest.value)
      return further > 0 || (further === 0 && bound.out) ? bound : strictest
    }, null)
  }

  #count(schema: Schema, key: string, at: string, most: number): number | null {
    const value = schema[key]
    if (value === undefined || value === null) return null
    if (!Number.isInteger(value) || (value as number) < 0) throw this.#wrong(at, `${key} must be a count`)
    if ((value as number) > most) throw this.#unsupported(at, `${key} above ${most}`)
    return value as number
  }

  #itemCount(schema: Schema, key: string, at: string): number | null {
    const count = this.#count(schema, key, at, MOST_ITEMS)
    this.#items += count ?? 0
    if (this.#items > MOST_ITEMS_IN_ALL)
      throw this.#wrong(at, `its items come to more than ${MOST_ITEMS_IN_ALL}`)
    return count
  }

  #countChoices(count: number, at: string): void {
    this.#choices += count
    if (this.#choices > MOST_CHOICES) throw this.#wrong(at, `it has more than ${MOST_CHOICES} choices`)
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

  /** A rule that begins with itself never ends. */
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
    const message = `Invalid schema for ${what}: at ${at.slice(0, 200)}, ${why}.`
    return userError("invalid_json_schema", { message }, { param })
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

function ownFormat(name: string): (typeof FORMATS)[string] | undefined {
  return Object.hasOwn(FORMATS, name) ? FORMATS[name] : undefined
}

function hasType(value: unknown, type: string): boolean {
  if (type === "null") return value === null
  if (type === "array") return Array.isArray(value)
  if (type === "object") return isObject(value)
  if (type === "integer") return Number.isInteger(value)
  return typeof value === type
}
