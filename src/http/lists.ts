/** Lists and maps of a request, read entry by entry: the first wrong one ends it. Zod itself would gather a fault of
 * each, which takes 30 µs and hundreds of bytes a piece. */
import { z } from "zod"

/** What a field that is read by code takes, for the API's description (openapi/). Zod's registries hand on what they know of a
 * schema to those that are made of it. */
const described = z.registry<{ as: unknown }>()

/** null: what it says itself. */
export function describedAs(schema: z.ZodType): z.ZodType | null {
  return (described.get(schema)?.as as z.ZodType | undefined) ?? null
}

/** The same schema, which takes what `as` does. */
export function readsAs<T extends z.ZodType>(schema: T, as: z.ZodType): T {
  described.add(schema as z.ZodType, { as })
  return schema
}

/** An array whose entries fit `entry`, at least `least` of them. */
export function listOf<T>(entry: z.ZodType<T>, least = 0): z.ZodType<T[]> {
  const list = z
    .array(z.unknown())
    .min(least)
    .transform((values, context) => {
      const read: T[] = []
      for (const [index, value] of values.entries()) {
        const one = entry.safeParse(value)
        if (!one.success) return fail(context, one.error, index)
        read.push(one.data)
      }
      return read
    }) as unknown as z.ZodType<T[]>
  return readsAs(list, least > 0 ? z.array(entry).min(least) : z.array(entry))
}

/** An object as a map: its names fit `name`, what they have fits `value`. */
export function mapOf<T>(name: z.ZodType<string>, value: z.ZodType<T>): z.ZodType<Record<string, T>> {
  const map = z.looseObject({}).transform((fields, context) => {
    const read: [string, T][] = []
    for (const [key, field] of Object.entries(fields)) {
      const named = name.safeParse(key)
      if (!named.success) return fail(context, named.error, key)
      const one = value.safeParse(field)
      if (!one.success) return fail(context, one.error, key)
      read.push([key, one.data])
    }
    return Object.fromEntries(read)
  }) as unknown as z.ZodType<Record<string, T>>
  return readsAs(map, z.record(name, value))
}

/** A text, or a list: a fault of the list names its place in it. */
export function textOr<T>(list: z.ZodType<T[]>, error: string): z.ZodType<string | T[]> {
  const either = z.unknown().transform((value, context) => {
    if (typeof value === "string") return value
    if (!Array.isArray(value)) {
      context.issues.push({ code: "custom", message: error, input: undefined, path: [] } as never)
      return z.NEVER
    }
    const read = list.safeParse(value)
    if (read.success) return read.data
    return fail(context, read.error)
  }) as unknown as z.ZodType<string | T[]>
  return readsAs(either, z.union([z.string(), list]))
}

/** Takes over the first fault of an entry. */
function fail(context: z.RefinementCtx, error: z.ZodError, ...within: (string | number)[]): never {
  const { path, ...issue } = error.issues[0]!
  context.issues.push({ ...issue, path: [...within, ...path], input: undefined } as never)
  return z.NEVER
}

type PromptField = string | number[] | string[] | number[][]

const ids = z.array(z.int())
/** Text, token ids, or several of either. */
export const promptSchema = readsAs(
  z.custom<PromptField>(isPrompt, {
    error: "must be a string, an array of token ids, or an array of either",
  }),
  z.union([z.string(), ids, z.array(z.string()), z.array(ids)]),
)

function isPrompt(value: unknown): value is PromptField {
  if (typeof value === "string") return true
  if (!Array.isArray(value)) return false
  const [first] = value
  if (first === undefined || typeof first === "number") return isTokens(value)
  if (typeof first === "string") return value.every((one) => typeof one === "string")
  return value.every(isTokens)
}

function isTokens(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(Number.isSafeInteger)
}
