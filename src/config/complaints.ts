/** What is wrong with a config, in its author's words: which field, why, and which field may have been meant. */
import { z } from "zod"
import { UserError } from "../errors.ts"
import type { FieldPath } from "./yaml-file.ts"

export interface Complaint {
  field: FieldPath
  message: string
}

/** Of a part whose schema is kept: what it names is not there, or two parts do not go together. */
export class FieldError extends UserError {
  readonly field: FieldPath

  constructor(field: FieldPath, message: string) {
    super(`${fieldName(field)}: ${message}`)
    this.field = field
  }
}

/** `keys[0].tenant`, as authors write it. */
export function fieldName(field: FieldPath): string {
  return field
    .map((part, i) => (typeof part === "number" ? `[${part}]` : `${i === 0 ? "" : "."}${part}`))
    .join("")
}

/** What YAML authors call the schema's types. */
const SHAPES: Record<string, string> = {
  record: "a map of names",
  object: "a map of fields",
  array: "a list",
  int: "a whole number",
  boolean: "true or false",
}

const FOUND: Record<string, string> = {
  array: "a list",
  object: "a map",
  null: "nothing",
  Infinity: "an infinite one",
}

/** All that is wrong, in the file's order of fields. */
export function complaintsOf({ issues }: z.ZodError, schema: z.ZodType): Complaint[] {
  return issues.flatMap((issue): Complaint[] => {
    const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)))
    if (issue.code === "unrecognized_keys")
      return issue.keys.map((key) => ({
        field: [...path, key],
        message: `is not a field this server knows${meant(key, fieldsAt(schema, path))}`,
      }))
    const { message } = issue.code === "invalid_key" ? (issue.issues[0] ?? issue) : issue
    return [{ field: path, message: inWords(message) }]
  })
}

function inWords(message: string): string {
  return message
    .replace(/^Invalid input: expected (\w+), received (\w+)$/, (_, expected, found) =>
      found === "undefined"
        ? "is missing"
        : `must be ${SHAPES[expected] ?? `a ${expected}`}, not ${FOUND[found] ?? `a ${found}`}`,
    )
    .replace(
      /^Invalid option: expected one of (.+)$/,
      (_, options: string) => `must be one of ${options.replaceAll('"', "").replaceAll("|", ", ")}`,
    )
}

interface JsonSchema {
  properties?: Record<string, JsonSchema>
  additionalProperties?: JsonSchema | boolean
  items?: JsonSchema
  anyOf?: JsonSchema[]
}

/** The fields that a part of the file may have. */
function fieldsAt(schema: z.ZodType, path: FieldPath): string[] {
  let parts: JsonSchema[] = [z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as JsonSchema]
  const open = (part: JsonSchema): JsonSchema[] => [part, ...(part.anyOf ?? []).flatMap(open)]
  for (const name of path)
    parts = parts.flatMap(open).flatMap((part) => {
      const own = typeof name === "number" ? part.items : part.properties?.[name]
      const any = part.additionalProperties
      return own ?? (typeof any === "object" ? any : [])
    })
  return parts.flatMap(open).flatMap((part) => Object.keys(part.properties ?? {}))
}

/** " (did you mean …?)", or nothing where no name is near. */
export function meant(word: string, names: readonly string[]): string {
  const near = names
    .map((name) => ({ name, away: distance(word.toLowerCase(), name.toLowerCase()) }))
    .filter(({ name, away }) => away <= Math.max(1, Math.floor(Math.max(word.length, name.length) / 3)))
    .sort((a, b) => a.away - b.away)[0]
  return near === undefined ? "" : ` (did you mean ${near.name}?)`
}

/** Letters to insert, leave out, replace or swap with their neighbour. */
function distance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      let least = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + same)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, rows[i - 2]![j - 2]! + 1)
      row.push(least)
    }
    rows.push(row)
  }
  return rows[a.length]![b.length]!
}
