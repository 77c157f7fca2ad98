/** Two schemas that both hold, as one. */
import { isObject, type Schema } from "./schema-size.ts"

/** Of which the larger is the stricter, and the smaller. */
const LEAST = new Set(["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"])
const MOST = new Set(["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"])
const CLOSED = new Set(["additionalProperties", "unevaluatedProperties"])
const INNER = new Set(["items", "propertyNames"])

/** null: there is no schema that says both. Annotations are the first one's. */
export function merged(a: Schema, b: Schema, isAnnotation: (key: string) => boolean): Schema | null {
  const both: Schema = { ...a }
  for (const [key, value] of Object.entries(b)) {
    if (!(key in both) || isAnnotation(key)) {
      both[key] ??= value
      continue
    }
    const one = mergedKeyword(key, both[key], value)
    if (one === undefined) return null
    both[key] = one
  }
  return both
}

function mergedKeyword(key: string, a: unknown, b: unknown): unknown {
  if (JSON.stringify(a) === JSON.stringify(b)) return a
  if (LEAST.has(key) && typeof a === "number" && typeof b === "number") return Math.max(a, b)
  if (MOST.has(key) && typeof a === "number" && typeof b === "number") return Math.min(a, b)
  if (key === "type") return common(listed(a), listed(b))
  if (key === "enum" && Array.isArray(a) && Array.isArray(b)) return common(a, b)
  if (key === "required" && Array.isArray(a) && Array.isArray(b)) return [...new Set([...a, ...b])]
  if (key === "properties" && isObject(a) && isObject(b)) return mergedProperties(a, b)
  // Of parts that are each closed the whole has the members of all.
  if (CLOSED.has(key) && (a === false || b === false)) return false
  if (CLOSED.has(key) || INNER.has(key)) return { allOf: [a, b] }
  if (key === "nullable") return a === true && b === true
  return undefined
}

function mergedProperties(a: Schema, b: Schema): Schema {
  const both: Schema = { ...a }
  for (const [name, schema] of Object.entries(b))
    both[name] = Object.hasOwn(both, name) ? { allOf: [both[name], schema] } : schema
  return both
}

const listed = (type: unknown): unknown[] => (Array.isArray(type) ? type : [type])

function common(a: readonly unknown[], b: readonly unknown[]): unknown {
  const others = new Set(b.map((value) => JSON.stringify(value)))
  const left = a.filter(
    (value) => others.has(JSON.stringify(value)) || (value === "integer" && b.includes("number")),
  )
  if (a.includes("number") && b.includes("integer") && !left.includes("integer")) left.push("integer")
  return left.length === 0 ? undefined : left
}
