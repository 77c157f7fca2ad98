/** Zod's schemas as JSON schemas of an OpenAPI document: those that have a name there are referred to by it. */
import { z } from "zod"
import { describedAs } from "../lists.ts"

export type JsonSchema = Record<string, unknown>

/** `names`: of schemas that are components. `root`: the one that is being told itself. */
export function jsonSchemaOf(
  schema: z.ZodType,
  names: ReadonlyMap<z.ZodType, string>,
  root: z.ZodType | null = null,
): JsonSchema {
  const name = names.get(schema)
  if (name !== undefined && schema !== root) return referenceTo(name)
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    // What is sent, and objects that may have more fields: clients must not break on a new one.
    io: "input",
    unrepresentable: "any",
    override: ({ zodSchema, jsonSchema }) => {
      const own = zodSchema as unknown as z.ZodType
      const named = own === schema ? undefined : names.get(own)
      const as = describedAs(own)
      if (named !== undefined) become(jsonSchema, referenceTo(named))
      else if (as !== null) become(jsonSchema, jsonSchemaOf(as, names))
      else explain(own, jsonSchema)
    },
  })
  return json
}

function referenceTo(name: string): JsonSchema {
  return { $ref: `#/components/schemas/${name}` }
}

function become(json: JsonSchema, other: JsonSchema): void {
  const { description } = json
  for (const key of Object.keys(json)) delete json[key]
  Object.assign(json, other, description === undefined ? {} : { description })
}

/** Of what a field may not be, or only be, its error says why. */
function explain(schema: z.ZodType, json: JsonSchema): void {
  const { type, error } = schema._zod.def
  if (json.description !== undefined || error === undefined) return
  if (type !== "null" && type !== "literal" && type !== "never") return
  const told = error({ code: "custom" } as never)
  const text = typeof told === "string" ? told : (told?.message ?? "")
  if (text !== "") json.description = sentence(text.replace(/^is not supported(?=[ :])/, "not supported"))
}

export function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`
}
