/** Objects and arrays of a schema. */
import { group, literal } from "./ebnf.ts"
import { keysOf } from "./exact-json.ts"
import type { SchemaParts } from "./schema-parts.ts"
import { isObject, type Schema } from "./schema-size.ts"
import { stringBody } from "./strings.ts"

export function objectBody(schema: Schema, at: string, parts: SchemaParts): string {
  const properties = schema.properties ?? {}
  if (!isObject(properties)) throw parts.wrong(at, "properties must be an object")
  const required = schema.required ?? []
  if (!Array.isArray(required) || required.some((name) => typeof name !== "string"))
    throw parts.wrong(at, "required must be a list of names")
  const needed = new Set(required as string[])
  const declared = keysOf(properties)
  const given = givenNames(schema)
  // What must be there and is not declared is anything that others may be.
  const undeclared = [...new Set([...(given ?? []), ...needed])].filter(
    (name) => !Object.hasOwn(properties, name),
  )
  if (undeclared.length > 0 && othersOf(schema) === false)
    throw parts.wrong(at, `required names ${JSON.stringify(undeclared[0])}, no property`)
  const members = [
    ...declared.map((name) => ({
      name,
      body: () => parts.inner(properties[name], `${at}/properties/${name}`),
    })),
    ...undeclared.map((name) => ({
      name,
      body: () => parts.inner(othersOf(schema) ?? true, `${at}/additionalProperties`),
    })),
  ].map(({ name, body }) => ({
    rule: parts.named("kv", `${literal(JSON.stringify(name))} ws ":" ws ${group(body())} ws`),
    required: needed.has(name),
  }))
  const others = given === null ? othersRule(schema, at, declared.length === 0, parts) : null
  return membersBody(members, others, parts)
}

/** The only names that there may be, where `propertyNames` lists them. */
function givenNames({ propertyNames: names }: Schema): string[] | null {
  if (!isObject(names) || !Array.isArray(names.enum)) return null
  return names.enum.filter((name) => typeof name === "string")
}

/** What the schema says of members that are not declared. */
function othersOf(schema: Schema): unknown {
  return schema.additionalProperties ?? schema.unevaluatedProperties
}

/** The rule of members that are not declared, or null where there may be none. Nothing declared: anything. */
function othersRule(schema: Schema, at: string, bare: boolean, parts: SchemaParts): string | null {
  const patterns = schema.patternProperties ?? {}
  if (!isObject(patterns)) throw parts.wrong(at, "patternProperties must be an object")
  const choices = keysOf(patterns).map((pattern) => {
    const key = stringBody({ pattern }, `${at}/patternProperties`, parts)
    return `${key} ws ":" ws ${group(parts.inner(patterns[pattern], `${at}/patternProperties/${pattern}`))}`
  })
  const others = othersOf(schema) ?? (bare && choices.length === 0)
  if (others !== false) {
    // A name that fits a pattern would have to fit that pattern's schema.
    if (choices.length > 0 && schema.additionalProperties !== undefined)
      throw parts.unsupported(at, "additionalProperties beside patternProperties")
    const key = keyBody(schema, at, parts)
    choices.push(`${key} ws ":" ws ${group(parts.inner(others, `${at}/additionalProperties`))}`)
  }
  if (choices.length === 0) return null
  return parts.named("kv", `${choices.length === 1 ? choices[0]! : `(${choices.join(" | ")})`} ws`)
}

/** Names of members that are not declared. */
function keyBody(schema: Schema, at: string, parts: SchemaParts): string {
  const names = schema.propertyNames ?? true
  if (names === true) return "string"
  if (!isObject(names)) throw parts.wrong(at, "propertyNames must be a schema")
  const typed = "enum" in names || "const" in names || "$ref" in names ? names : { type: "string", ...names }
  return group(parts.inner(typed, `${at}/propertyNames`))
}

/** Members in the order of declaration, optional ones or not; `rest` matches what follows a first member. */
function membersBody(
  members: readonly { rule: string; required: boolean }[],
  more: string | null,
  parts: SchemaParts,
): string {
  const first: string[] = []
  let rest = more === null ? "" : ` ("," ws ${more})*`
  if (more !== null && members.every((member) => !member.required)) first.push(`${more}${rest}`)
  for (let i = members.length - 1; i >= 0; i--) {
    const { rule, required } = members[i]!
    if (members.slice(0, i).every((member) => !member.required)) first.unshift(`${rule}${rest}`)
    const next = `("," ws ${rule})${required ? "" : "?"}${rest}`
    rest = i === 0 ? "" : ` ${parts.named("rest", next)}`
  }
  const optional = members.every((member) => !member.required)
  if (first.length === 0) return `"{" ws "}"`
  return `"{" ws (${first.join(" | ")})${optional ? "?" : ""} "}"`
}

export function arrayBody(schema: Schema, at: string, parts: SchemaParts): string {
  // Before 2020 a tuple was a list of items, and what follows it the additional ones.
  const old = Array.isArray(schema.items)
  const fixed = (old ? schema.items : schema.prefixItems) ?? []
  if (!Array.isArray(fixed)) throw parts.wrong(at, "prefixItems must be a list of schemas")
  const others = (old ? schema.additionalItems : schema.items) ?? null
  const min = parts.itemCount(schema, "minItems", at)
  const max = parts.itemCount(schema, "maxItems", at)
  if (max !== null && max < (min ?? 0)) throw parts.wrong(at, "maxItems is less than minItems")
  if (fixed.length > 0) return tupleBody({ fixed, others, min, max }, at, parts)
  if (max === 0 || others === false) return `"[" ws "]"`
  const item = parts.named("item", `${group(parts.inner(others ?? true, `${at}/items`))} ws`)
  const more = `("," ws ${item}){${Math.max(0, (min ?? 0) - 1)},${max === null ? "" : max - 1}}`
  return `"[" ws (${item} ${more})${(min ?? 0) === 0 ? "?" : ""} "]"`
}

interface Tuple {
  fixed: readonly unknown[]
  others: unknown
  min: number | null
  max: number | null
}

/** All the first items where the schema does not say that fewer will do; then others, where it says what they are. */
function tupleBody({ fixed, others, min, max }: Tuple, at: string, parts: SchemaParts): string {
  const most = max ?? (others === null || others === false ? fixed.length : Infinity)
  const first = fixed.slice(0, most)
  const items = first.map((item, i) => group(parts.inner(item, `${at}/prefixItems/${i}`)))
  const least = Math.max(0, (min ?? 0) - first.length)
  const further = most - first.length
  if (others === false && least > 0) throw parts.wrong(at, "minItems is more than there are items")
  if (further === 0) return `"[" ws ${items.join(` ws "," ws `)} ws "]"`
  const other = group(parts.inner(others === null ? true : others, `${at}/items`))
  const more = `("," ws ${other} ws){${least},${further === Infinity ? "" : further}}`
  return `"[" ws ${items.join(` ws "," ws `)} ws ${more} "]"`
}
