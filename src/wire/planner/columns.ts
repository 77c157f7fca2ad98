/** Columns of numbers: one number a request, as the bytes of little-endian float64 (Python: `array("d")`). A step of a thousand
 * requests is then a few copies of memory instead of a thousand maps. */
import { z } from "zod"

/** Numbers of the requests of one step, in one order for all columns of a group. */
export type Column = Float64Array

const BYTES = Float64Array.BYTES_PER_ELEMENT

/** As it goes into a frame; the same memory. */
export function columnBytes(column: Column): Uint8Array {
  return new Uint8Array(column.buffer, column.byteOffset, column.byteLength)
}

export function columnOf(numbers: Iterable<number>): Column {
  return Float64Array.from(numbers)
}

/** Whole numbers from 0 on: ids, tokens, positions, hashes of 53 bits. */
export const counts = column("a whole number from 0 to 2^53", (value) => isWhole(value) && value >= 0)
/** Whole numbers, −1 where there is none. */
export const indexes = column("a whole number from -1 to 2^53", (value) => isWhole(value) && value >= -1)
/** Times from 0 on, µs. */
export const durations = column("a time from 0 on", (value) => value >= 0 && value < Infinity)

/** Checked in one loop: a schema for each number would cost more than the plan (bench/planner-socket.ts). */
function column(what: string, fits: (value: number) => boolean) {
  return z
    .custom<Uint8Array>((value) => value instanceof Uint8Array, "is no column: give the bytes of float64")
    .transform((bytes, context): Column => {
      const numbers = numbersIn(bytes)
      const wrong = numbers?.findIndex((value) => !fits(value))
      if (wrong === -1) return numbers!
      const message =
        numbers === null
          ? `has ${bytes.byteLength} bytes, which is no number of float64`
          : `[${wrong}] is ${numbers[wrong!]}, not ${what}`
      context.issues.push({ code: "custom", message, input: bytes })
      return z.NEVER
    })
}

/** A copy: what arrives is at any offset, and its memory is the socket's. */
function numbersIn(bytes: Uint8Array): Column | null {
  if (bytes.byteLength % BYTES !== 0) return null
  const numbers = new Float64Array(bytes.byteLength / BYTES)
  columnBytes(numbers).set(bytes)
  return numbers
}

function isWhole(value: number): boolean {
  return Number.isSafeInteger(value)
}
