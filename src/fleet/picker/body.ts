/** A request's body: read, and written anew with fields that its client did not send. */
import { userError } from "../../errors.ts"

export type Fields = Readonly<Record<string, unknown>>

const CLOSING_BRACE = 0x7d

/** The fields of a JSON object. Throws UserError for anything else. */
export function readFields(body: Buffer): Fields {
  let value: unknown
  try {
    value = JSON.parse(body.toString("utf8"))
  } catch (error) {
    throw userError("invalid_json", { detail: (error as Error).message.slice(0, 200) }, { cause: error })
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields
  throw userError("invalid_json", { detail: `it is ${kindOf(value)}, not an object` })
}

function kindOf(value: unknown): string {
  if (value === null) return "null"
  return Array.isArray(value) ? "an array" : `a ${typeof value}`
}

/** The body with `added` in place of fields of the same names. `fields` is what `readFields` made of it. */
export function withFields(body: Buffer, fields: Fields, added: Fields): Buffer {
  const names = Object.keys(added)
  if (names.length === 0) return body
  if (names.some((name) => Object.hasOwn(fields, name))) return rewritten(body, added)
  // At its end, so that nothing else is touched: a large body is not written again, no number is rounded.
  const end = body.lastIndexOf(CLOSING_BRACE)
  const comma = Object.keys(fields).length === 0 ? "" : ","
  const tail = `${comma}${JSON.stringify(added).slice(1)}`
  return Buffer.concat([body.subarray(0, end), Buffer.from(tail)])
}

/** Numbers stay as they were written: a seed of 64 bits would be rounded. */
function rewritten(body: Buffer, added: Fields): Buffer {
  const exact = JSON as unknown as {
    parse(
      text: string,
      reviver: (key: string, value: unknown, context: { source: string }) => unknown,
    ): object
    rawJSON(text: string): unknown
  }
  const fields = exact.parse(body.toString("utf8"), (_key, value, { source }) =>
    typeof value === "number" && String(value) !== source ? exact.rawJSON(source) : value,
  )
  return Buffer.from(JSON.stringify({ ...fields, ...added }))
}
