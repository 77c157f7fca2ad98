/** The config file as a JSON Schema, for editors that complete and check YAML by one (docs/config.schema.json). */
import { z } from "zod"
import { backendSchema } from "./backends.ts"
import { configSchema } from "./file.ts"

type Json = Record<string, unknown>

export function configJsonSchema(): object {
  const { $schema, ...schema } = jsonOf(configSchema) as Json & { properties: Json }
  const { $schema: _, ...backend } = jsonOf(backendSchema) as Json
  const { classes, backends, ...rest } = schema.properties
  return {
    $schema,
    title: "SLOs-Serve configuration",
    description: "The file after `slos-serve serve --config` (docs/config.md).",
    ...schema,
    // Without classes a file has the built-in ones.
    required: [],
    properties: { ...rest, classes, backends: { ...(backends as Json), items: backend } },
  }
}

const jsonOf = (schema: z.ZodType): object => z.toJSONSchema(schema, { io: "input", unrepresentable: "any" })
