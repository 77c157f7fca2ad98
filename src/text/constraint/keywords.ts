/** The words of JSON Schema: which restrict what, and which are for reading alone. */
import type { Schema } from "./schema-size.ts"

/** Keywords that restrict, by the type of value that they restrict. */
export const KEYWORDS: Record<string, readonly string[]> = {
  object:
    "properties required additionalProperties patternProperties propertyNames unevaluatedProperties".split(
      " ",
    ),
  array: "items prefixItems additionalItems minItems maxItems".split(" "),
  string: ["minLength", "maxLength", "pattern", "format"],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  boolean: [],
  null: [],
}
export const OF_TYPES = new Set(Object.values(KEYWORDS).flat())
const OF_ALL = new Set(["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "nullable"])
/** Those that no grammar here keeps. Any other name is none of JSON Schema's: it says something to people or programs. */
export const NOT_KEPT = new Set(
  (
    "not if then else contains minContains maxContains uniqueItems minProperties maxProperties dependentRequired " +
    "dependentSchemas dependencies unevaluatedItems $dynamicRef $recursiveRef disallow extends"
  ).split(" "),
)
export function isAnnotation(key: string): boolean {
  return !OF_TYPES.has(key) && !OF_ALL.has(key) && !NOT_KEPT.has(key)
}

export function withoutAnnotations(schema: Schema): Schema {
  return Object.fromEntries(Object.entries(schema).filter(([key]) => !isAnnotation(key)))
}

/** A keyword with the value that it has when it is left out. */
export function saysNothing(key: string, value: unknown): boolean {
  return (
    value === null || (key === "uniqueItems" && value === false) || (key === "minProperties" && value === 0)
  )
}
