/** JSON Schema to XGrammar's EBNF: what everyday tools write. A keyword that a grammar cannot keep is refused, never ignored;
 * only annotations are. (XGrammar has such a translation, too; it ignores `allOf`, `not`, and
 * `uniqueItems`, lets 1.9 pass `maximum: 1` and control characters pass `maxLength`, and takes seconds for lengths.) */
import { type Bounds, boundsHeader, MOST_BOUNDS, markOf } from "../../engine/constraint/counted.ts"
import { type UserError, userError } from "../../errors.ts"
import { alternatives, BASE_RULES, literal } from "./ebnf.ts"
import { isRawNumber } from "./exact-json.ts"
import { isAnnotation, KEYWORDS, NOT_KEPT, OF_TYPES, saysNothing, withoutAnnotations } from "./keywords.ts"
import { merged } from "./merge.ts"
import { numberBody } from "./numbers.ts"
import { arrayBody, objectBody } from "./objects.ts"
import { onlyObjects } from "./only-objects.ts"
import type { SchemaParts } from "./schema-parts.ts"
import { isObject, type Schema, SchemaSize } from "./schema-size.ts"
import { stringBody } from "./strings.ts"

export interface SchemaSource {
  /** For messages: `response_format 'person'`. */
  what: string
  /** The request's field. */
  param: string
}

/** Of one array. */
const MOST_ITEMS = 1000
/** Of one grammar. */
const MOST_ITEMS_IN_ALL = 10_000
/** Values of enums and members of anyOf of one schema. */
const MOST_CHOICES = 5000
const MOST_RULES = 5000
const MOST_DEPTH = 64
/** Pairs of schemas that hold together: each is made one. */
const MOST_MERGES = 2000

/** Collects the rules of one or more schemas; each has a rule of its own. */
export class SchemaGrammar implements SchemaParts {
  readonly #rules = new Map<string, string>()
  /** Rule of each referenced part of the document at hand. */
  readonly #refs = new Map<string, string>()
  /** Parts of it that no grammar here keeps, and why. */
  readonly #failed = new Map<string, unknown>()
  /** Rules that a rule may begin with. */
  readonly #leads = new Map<string, string[]>()
  #source!: SchemaSource
  #document!: Schema
  #names = 0
  #depth = 0
  #choices = 0
  #items = 0
  #merges = 0
  #appended = ""
  readonly #size = new SchemaSize()
  /** Errors about what a schema may say, and no grammar here keeps. */
  readonly #notKept = new WeakSet<object>()
  /** Of strings. */
  readonly #lengths: Bounds[] = []

  /** Name of the rule that matches what the schema allows. Throws UserError for what a grammar cannot keep. */
  add(schema: unknown, source: SchemaSource): string {
    return this.#add(schema, schema, source)
  }

  /** `document`: what references lead into. */
  #add(schema: unknown, document: unknown, source: SchemaSource): string {
    this.#source = source
    if (!isObject(schema) || !isObject(document)) throw this.#wrong("#", "it must be an object")
    const fault = this.#size.fault(document)
    if (fault !== null) throw this.#wrong("#", fault)
    this.#document = document
    this.#refs.clear()
    this.#failed.clear()
    this.#choices = 0
    this.#merges = 0
    const name = schema === document ? this.#ref("#", "#", null) : this.#root(schema)
    this.#refuseLoops()
    return name
  }

  #root(schema: Schema): string {
    const name = `ref-${this.#names++}`
    this.rule(name, this.#body(schema, "#", name))
    return name
  }

  /** The same of what is an object of it. What allows no object, or says nothing, is any object. */
  addObject(schema: unknown, source: SchemaSource): string {
    if (!isObject(schema)) return this.add({ type: "object" }, source)
    return this.#add(onlyObjects(schema, schema), schema, source)
  }

  /** The same of a part of a schema, by its JSON pointer. */
  addPart(pointer: string, document: unknown, source: SchemaSource): string {
    return this.#add({ $ref: pointer }, document, source)
  }

  /** What that answers; where it throws, the rules that it has added are taken back. */
  tried<T>(add: () => T): T {
    const before = new Set(this.#rules.keys())
    try {
      return add()
    } catch (error) {
      for (const name of this.#rules.keys()) if (!before.has(name)) this.#rules.delete(name)
      throw error
    }
  }

  /** Rules so far. */
  get size(): number {
    return this.#rules.size
  }

  /** A rule of one's own. */
  rule(name: string, body: string): void {
    if (this.#rules.size >= MOST_RULES) throw this.#wrong("#", "it is too large")
    this.#rules.set(name, body)
  }

  /** Rules in EBNF that were made elsewhere. */
  append(rules: string): void {
    this.#appended += `${rules.trim()}\n`
  }

  /** The whole grammar; `root` is the body of its first rule, `header` are lines before that. */
  text(root: string, header = ""): string {
    const rules = [`root ::= ${root}`, ...[...this.#rules].map(([name, body]) => `${name} ::= ${body}`)]
    return `${boundsHeader(this.#lengths)}${header}${rules.join("\n")}\n${this.#appended}${BASE_RULES}`
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
    this.#refuseUnkept(schema, at)
    const rest = withoutAnnotations(schema)
    if (rest.nullable === true) {
      const { nullable: _, ...others } = rest
      return alternatives([this.#body(others, at, start), "null"])
    }
    if ("$ref" in rest) {
      const { $ref: pointer, ...beside } = rest
      if (Object.keys(beside).length === 0) return this.#ref(pointer, at, start)
      return this.#body(this.#both(this.#target(pointer, at), beside, at), at, start)
    }
    if ("allOf" in rest) return this.#all(rest, at, start)
    for (const key of ["anyOf", "oneOf"] as const) if (key in rest) return this.#any(key, rest, at, start)
    if ("const" in rest || "enum" in rest) return this.#values(rest, at)
    const types = this.#types(rest, at)
    if (types === null) return "value"
    return alternatives(types.map((type) => this.#typed(type, rest, at)))
  }

  #all({ allOf: parts, ...rest }: Schema, at: string, start: string | null): string {
    if (!Array.isArray(parts) || parts.length === 0) throw this.#wrong(at, "allOf must be a list of schemas")
    const [only] = parts
    if (parts.length === 1 && Object.keys(rest).length === 0) return this.#body(only, `${at}/allOf/0`, start)
    const all = parts.reduce<Schema>((both, part) => this.#both(both, part, at), rest)
    return this.#body(all, at, start)
  }

  /** One schema for two, references resolved. */
  #both(a: Schema, b: unknown, at: string): Schema {
    if (b === true) return a
    if (!isObject(b)) throw this.#wrong(at, "a schema must be an object")
    if (++this.#merges > MOST_MERGES) throw this.#wrong(at, "it has too many schemas that hold together")
    const { $ref: pointer, ...beside } = withoutAnnotations(b)
    if (pointer !== undefined) return this.#both(this.#both(a, this.#target(pointer, at), at), beside, at)
    const { allOf: parts, ...others } = beside
    if (Array.isArray(parts))
      return parts.reduce<Schema>((both, part) => this.#both(both, part, at), this.#both(a, others, at))
    this.#refuseUnkept(b, at)
    const both = merged(a, others, isAnnotation)
    if (both === null) throw this.#unsupported(at, "allOf of schemas that say different things of the same")
    return both
  }

  /** What cannot be kept is left out where something else is possible. */
  #any(
    key: "anyOf" | "oneOf",
    { [key]: choices, ...rest }: Schema,
    at: string,
    start: string | null,
  ): string {
    if (!Array.isArray(choices) || choices.length === 0)
      throw this.#wrong(at, `${key} must be a list of schemas`)
    this.#countChoices(choices.length, at)
    const alone = Object.keys(rest).length === 0
    let refused: unknown = null
    const bodies = choices.flatMap((choice, i) => {
      const where = `${at}/${key}/${i}`
      try {
        return [this.#body(alone ? choice : this.#both(rest, choice, where), where, start)]
      } catch (error) {
        if (!this.#notKept.has(error as object)) throw error
        refused = error
        return []
      }
    })
    if (bodies.length === 0) throw refused
    return alternatives(bodies)
  }

  #typed(type: string, schema: Schema, at: string): string {
    if (type === "object") return objectBody(schema, at, this)
    if (type === "array") return arrayBody(schema, at, this)
    if (type === "string") return stringBody(schema, at, this)
    if (type === "integer" || type === "number") return numberBody(schema, at, type === "integer", this)
    return type
  }

  /** null: anything goes. */
  #types(schema: Schema, at: string): string[] | null {
    const { type } = schema
    if (type === undefined) {
      const implied = Object.keys(KEYWORDS).filter((t) => KEYWORDS[t]!.some((keyword) => keyword in schema))
      if (implied.length > 0) return implied.slice(0, 1)
      return null
    }
    const types = Array.isArray(type) ? type : [type]
    const wrong = types.find((t) => typeof t !== "string" || !Object.hasOwn(KEYWORDS, t))
    if (types.length > 0 && wrong === undefined) return [...new Set(types as string[])]
    throw this.#wrong(at, `there is no type ${JSON.stringify(wrong ?? type)}`)
  }

  #values(schema: Schema, at: string): string {
    const other = Object.keys(schema).find((key) => OF_TYPES.has(key))
    if (other !== undefined) throw this.#unsupported(at, `"${other}" beside enum or const`)
    const values = "const" in schema ? [schema.const] : schema.enum
    if (!Array.isArray(values) || values.length === 0) throw this.#wrong(at, "enum must be a list of values")
    const types = schema.type === undefined ? null : this.#types(schema, at)
    const fitting = values.filter((value) => types?.some((type) => hasType(value, type)) ?? true)
    if (fitting.length === 0) throw this.#wrong(at, "no value of enum has the type")
    this.#countChoices(fitting.length, at)
    return alternatives(fitting.map((value) => literal(JSON.stringify(value))))
  }

  inner(schema: unknown, at: string): string {
    return this.#body(schema, at, null)
  }

  /** What stands behind the opening quotation mark of a string of bounded length. */
  mark(bounds: Bounds, at: string): string {
    let index = this.#lengths.findIndex(({ min, max }) => min === bounds.min && max === bounds.max)
    if (index < 0) index = this.#lengths.push(bounds) - 1
    if (index >= MOST_BOUNDS)
      throw this.#wrong(at, `it has more than ${MOST_BOUNDS} different lengths of strings`)
    return literal(markOf(index))
  }

  count(schema: Schema, key: string, at: string, most: number): number | null {
    const value = schema[key]
    if (value === undefined || value === null) return null
    if (!Number.isInteger(value) || (value as number) < 0) throw this.#wrong(at, `${key} must be a count`)
    if ((value as number) > most) throw this.#unsupported(at, `${key} above ${most}`)
    return value as number
  }

  itemCount(schema: Schema, key: string, at: string): number | null {
    const count = this.count(schema, key, at, MOST_ITEMS)
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
    const target = this.#target(pointer, at)
    const key = pointer as string
    if (this.#failed.has(key)) throw this.#failed.get(key)
    let name = this.#refs.get(key)
    if (name === undefined) {
      name = this.name("ref")
      this.#refs.set(key, name)
      this.rule(
        name,
        this.#tried(key, name, () => this.#body(target, key, name!)),
      )
    }
    if (start !== null) this.#leads.set(start, [...(this.#leads.get(start) ?? []), name])
    return name
  }

  /** Parts of what failed may have its name already: it must have a rule, though none that is used leads there. */
  #tried(pointer: string, name: string, body: () => string): string {
    try {
      return body()
    } catch (error) {
      this.#failed.set(pointer, error)
      this.rule(name, literal("\u0001"))
      throw error
    }
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

  #target(pointer: unknown, at: string): Schema {
    if (typeof pointer !== "string" || !/^#($|\/)/.test(pointer))
      throw this.#unsupported(at, `$ref ${JSON.stringify(pointer)}, not to a part of the schema itself,`)
    const target = this.#at(pointer, at)
    if (!isObject(target)) throw this.#wrong(pointer, "a schema must be an object")
    return target
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

  named(stem: string, body: string): string {
    const name = this.name(stem)
    this.rule(name, body)
    return name
  }

  name(stem: string): string {
    return `${stem}-${this.#names++}`
  }

  #refuseUnkept(schema: Schema, at: string): void {
    const other = Object.keys(schema).find((key) => NOT_KEPT.has(key) && !saysNothing(key, schema[key]))
    if (other !== undefined) throw this.#unsupported(at, `"${other}"`)
  }

  unsupported(at: string, what: string): UserError {
    return this.#unsupported(at, what)
  }

  wrong(at: string, why: string): UserError {
    return this.#wrong(at, why)
  }

  #unsupported(at: string, what: string): UserError {
    const error = this.#wrong(at, `${what} is not supported here`)
    this.#notKept.add(error)
    return error
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

function hasType(value: unknown, type: string): boolean {
  if (isRawNumber(value)) return type === "integer" || type === "number"
  if (type === "null") return value === null
  if (type === "array") return Array.isArray(value)
  if (type === "object") return isObject(value)
  if (type === "integer") return Number.isInteger(value)
  return typeof value === type
}
