/** Values that are written as plain text, and what they are by the tool's schema. */
import { isObject } from "../constraint/schema-size.ts"

/** JSON types that a parameter may have; null: the schema does not say. */
export function typesOf(parameters: unknown, key: string): ReadonlySet<string> | null {
  if (!isObject(parameters)) return null
  const { properties } = parameters
  if (!isObject(properties) || !Object.hasOwn(properties, key)) return null
  const types = typesIn(properties[key], parameters, 0)
  return types === null ? null : new Set(types)
}

const MOST_REFERENCES = 8

function typesIn(schema: unknown, document: Record<string, unknown>, depth: number): string[] | null {
  if (!isObject(schema) || depth > MOST_REFERENCES) return null
  const nullable = schema.nullable === true ? ["null"] : []
  if (typeof schema.type === "string") return [schema.type, ...nullable]
  if (Array.isArray(schema.type))
    return [...schema.type.filter((type) => typeof type === "string"), ...nullable]
  if (Array.isArray(schema.enum)) return schema.enum.map(typeOf)
  if ("const" in schema) return [typeOf(schema.const)]
  if (typeof schema.$ref === "string") return typesIn(at(document, schema.$ref), document, depth + 1)
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf
  if (!Array.isArray(choices)) return null
  const each = choices.map((choice) => typesIn(choice, document, depth + 1))
  return each.includes(null) ? null : each.flatMap((types) => types ?? [])
}

function at(document: Record<string, unknown>, pointer: string): unknown {
  let found: unknown = document
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replace(/~1/g, "/").replace(/~0/g, "~")
    if (!isObject(found) || !Object.hasOwn(found, key)) return null
    found = found[key]
  }
  return found
}

/** The texts of a value that is written as it is, where it is a string or null; null: it may be something else. */
export function textsOf(
  schema: unknown,
  document: Record<string, unknown>,
  depth = 0,
): string[] | "any" | null {
  if (!isObject(schema) || depth > MOST_REFERENCES) return null
  const inside = (one: unknown) => textsOf(one, document, depth + 1)
  if (typeof schema.$ref === "string") return inside(at(document, schema.$ref))
  const all = schema.allOf
  if (Array.isArray(all)) return all.length === 1 ? inside(all[0]) : null
  const choices = schema.anyOf ?? schema.oneOf
  if (Array.isArray(choices)) return joined(choices.map(inside))
  const values = "const" in schema ? [schema.const] : schema.enum
  if (Array.isArray(values))
    return joined(
      values.map((value) => (value === null ? ["null"] : typeof value === "string" ? [value] : null)),
    )
  const types = (Array.isArray(schema.type) ? schema.type : [schema.type]).filter((type) => type !== "null")
  if (types.length === 0) return ["null"]
  return types.every((type) => type === "string") ? "any" : null
}

function joined(texts: readonly (string[] | "any" | null)[]): string[] | "any" | null {
  if (texts.includes(null)) return null
  return texts.includes("any") ? "any" : (texts as string[][]).flat()
}

export function typeOf(value: unknown): string {
  if (value === null) return "null"
  if (Array.isArray(value)) return "array"
  return typeof value === "number" ? "number" : typeof value
}

/** JSON text of a value: as JSON where it is of one of the types, else a string. */
export function jsonOf(raw: string, types: ReadonlySet<string> | null): string {
  const text = raw.trim()
  try {
    const value: unknown = JSON.parse(text)
    const type = typeOf(value)
    const fits =
      types === null ? type !== "string" : types.has(type) || (type === "number" && types.has("integer"))
    if (fits) return text
  } catch {
    // Python's spelling, which models that learnt from it write.
    const constant = { True: "true", False: "false", None: "null" }[text]
    if (constant !== undefined && types !== null && !types.has("string")) return constant
  }
  return JSON.stringify(raw)
}
