/** Numbers of a schema: whole or not, between bounds. */
import { rangeGrammar } from "./ranges.ts"
import type { SchemaParts } from "./schema-parts.ts"
import type { Schema } from "./schema-size.ts"

const LARGEST_BOUND = 1e19

interface Bound {
  value: number
  /** As it was written. */
  text: string
  /** The bound itself is out. */
  out: boolean
}

export function numberBody(schema: Schema, at: string, whole: boolean, parts: SchemaParts): string {
  const decimals = decimalsOf(schema, at, whole, parts)
  const min = bound(schema, "minimum", "exclusiveMinimum", 1, at, parts)
  const max = bound(schema, "maximum", "exclusiveMaximum", -1, at, parts)
  const places = decimals === null ? "" : decimals === 0 ? "" : ` ("." [0-9]{1,${decimals}})?`
  if (min === null && max === null)
    return decimals === null ? (whole ? "integer" : "number") : `("-"? natural${places})`
  if (max === null && min!.value === 0 && !min!.out) {
    if (decimals !== null) return `(natural${places})`
    return whole ? "natural" : "magnitude"
  }
  const range = {
    ...{ min: min?.text ?? null, minOut: min?.out ?? false },
    ...{ max: max?.text ?? null, maxOut: max?.out ?? false },
  }
  const grammar = rangeGrammar(range, whole ? 0 : (decimals ?? undefined))
  if (grammar === null)
    throw parts.wrong(at, `no ${whole ? "integer" : "number of six decimals"} is within the bounds`)
  return `(${grammar})`
}

/** Most decimals, by a `multipleOf` that is a power of ten; null: as many as it likes. */
function decimalsOf(schema: Schema, at: string, whole: boolean, parts: SchemaParts): number | null {
  const step = schema.multipleOf ?? null
  if (step === null) return null
  if (typeof step !== "number" || !(step > 0)) throw parts.wrong(at, "multipleOf must be a positive number")
  const decimals = -Math.round(Math.log10(step))
  if (Number(`1e${-decimals}`) !== step || decimals < 0 || decimals > 6)
    throw parts.unsupported(at, `multipleOf other than 1, 0.1, … 0.000001`)
  return whole ? null : decimals
}

/** The stricter of a bound that is in the range and one that is not. */
function bound(
  schema: Schema,
  inclusive: string,
  exclusive: string,
  sign: 1 | -1,
  at: string,
  parts: SchemaParts,
): Bound | null {
  // As older drafts and OpenAPI 3.0 say that the bound itself is out.
  const flagged = schema[exclusive] === true
  const given = [inclusive, exclusive].flatMap((key): Bound[] => {
    const number = schema[key] ?? null
    if (number === null || typeof number === "boolean") return []
    const text = JSON.stringify(number)
    const value = Number(text)
    if (!/^-?\d/.test(text) || !Number.isFinite(value)) throw parts.wrong(at, "bounds must be numbers")
    if (Math.abs(value) >= LARGEST_BOUND) throw parts.unsupported(at, `${key} beyond ${LARGEST_BOUND}`)
    return [{ value, text, out: flagged || key === exclusive }]
  })
  return given.reduce<Bound | null>((strictest, one) => {
    if (strictest === null) return one
    const further = sign * (one.value - strictest.value)
    return further > 0 || (further === 0 && one.out) ? one : strictest
  }, null)
}
