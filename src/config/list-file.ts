/** A list that an operator keeps in a YAML file of its own, which may change while it is used. */
import { parse } from "yaml"
import type { z } from "zod"
import { UserError } from "../errors.ts"
import { readSettled } from "./settled-file.ts"

export interface ListForm<T> {
  /** What it is a list of: in a map it has this name, as in the config. */
  name: string
  schema: z.ZodType<T>
  /** A line of it. */
  example: string
}

/** Of a file that is a list, or a map that has it. One that has nothing in it is an empty list. Throws UserError. */
export async function readListFile<T>(path: string, { name, schema, example }: ListForm<T>): Promise<T> {
  const wrong = (detail: string) => new UserError(`${path}: ${detail}`)
  let content: unknown
  try {
    content = parse(await readSettled(path))
  } catch (error) {
    throw wrong((error as Error).message.split("\n")[0]!)
  }
  const list = isMapWith(content, name) ? content[name] : content
  const parsed = schema.safeParse(list ?? [])
  if (parsed.success) return parsed.data
  throw wrong(`it is no list of ${name}; give lines like - ${example}`)
}

function isMapWith<Name extends string>(content: unknown, name: Name): content is Record<Name, unknown> {
  return typeof content === "object" && content !== null && Object.hasOwn(content, name)
}
