/** What of a schema allows objects: a tool's arguments are one, whatever its schema says. */
import { isObject, type Schema } from "./schema-size.ts"

const MOST_LEVELS = 16
/** Keywords that choose between schemas. */
const CHOICES = ["anyOf", "oneOf"] as const

/** A schema of the objects that `schema` allows, or of any object where it allows none. */
export function onlyObjects(schema: Schema, document: Schema): Schema {
  return objects(schema, document, 0) ?? { type: "object" }
}

function objects(schema: unknown, document: Schema, level: number): Schema | null {
  if (!isObject(schema) || level > MOST_LEVELS) return null
  if (typeof schema.$ref === "string") {
    const target = at(document, schema.$ref)
    // What leads nowhere is refused where it is read.
    return target === undefined ? schema : objects(target, document, level + 1)
  }
  for (const key of CHOICES) {
    const choices = schema[key]
    if (!Array.isArray(choices)) continue
    const left = choices
      .map((choice) => objects(choice, document, level + 1))
      .filter((choice) => choice !== null)
    return left.length === 0 ? null : ofTypeObject({ ...schema, [key]: left })
  }
  if ("const" in schema) return isObject(schema.const) ? schema : null
  if (Array.isArray(schema.enum)) {
    const left = schema.enum.filter(isObject)
    return left.length === 0 ? null : ofTypeObject({ ...schema, enum: left })
  }
  const { type } = schema
  if (type === undefined) return { ...schema, type: "object" }
  return type === "object" || (Array.isArray(type) && type.includes("object")) ? ofTypeObject(schema) : null
}

/** Says no other type any more. */
function ofTypeObject(schema: Schema): Schema {
  const { nullable: _, ...rest } = schema
  return "type" in rest ? { ...rest, type: "object" } : rest
}

function at(document: Schema, pointer: string): unknown {
  let found: unknown = document
  for (const part of pointer.split("/").slice(1)) {
    const key = part.replace(/~1/g, "/").replace(/~0/g, "~")
    if (!isObject(found) || !Object.hasOwn(found, key)) return undefined
    found = found[key]
  }
  return found
}
