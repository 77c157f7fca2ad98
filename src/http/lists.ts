/** Lists and maps of a request, read entry by entry: the first wrong one ends it. Zod itself would gather a fault of
 * each, which takes 30 µs and hundreds of bytes a piece. */
import { z } from "zod"

/** An array whose entries fit `entry`, at least `least` of them. */
export function listOf<T>(entry: z.ZodType<T>, least = 0): z.ZodType<T[]> {
  return z
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
}

/** An object as a map: its names fit `name`, what they have fits `value`. */
export function mapOf<T>(name: z.ZodType<string>, value: z.ZodType<T>): z.ZodType<Record<string, T>> {
  return z.looseObject({}).transform((fields, context) => {
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
}

/** A text, or a list: a fault of the list names its place in it. */
export function textOr<T>(list: z.ZodType<T[]>, error: string): z.ZodType<string | T[]> {
  return z.unknown().transform((value, context) => {
    if (typeof value === "string") return value
    if (!Array.isArray(value)) {
      context.issues.push({ code: "custom", message: error, input: undefined, path: [] } as never)
      return z.NEVER
    }
    const read = list.safeParse(value)
    if (read.success) return read.data
    return fail(context, read.error)
  }) as unknown as z.ZodType<string | T[]>
}

/** Takes over the first fault of an entry. */
function fail(context: z.RefinementCtx, error: z.ZodError, ...within: (string | number)[]): never {
  const { path, ...issue } = error.issues[0]!
  context.issues.push({ ...issue, path: [...within, ...path], input: undefined } as never)
  return z.NEVER
}

type PromptField = string | number[] | string[] | number[][]

/** Text, token ids, or several of either. */
export const promptSchema = z.custom<PromptField>(isPrompt, {
  error: "must be a string, an array of token ids, or an array of either",
})

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
