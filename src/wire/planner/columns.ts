/** Columns of numbers: one number a request, as the bytes of little-endian float64 (Python: `array("d")`), in plans of int64
 * (`memoryview.cast("q")`). A step of a thousand requests is then a few copies of memory instead of a thousand maps. */
import { z } from "zod"

/** Numbers of the requests of one step, in one order for all columns of a group. */
export type Column = Float64Array

const BYTES = Float64Array.BYTES_PER_ELEMENT
/** What 32 bits hold. */
const HALF = 2 ** 32

/** As it goes into a frame; the same memory. */
export function columnBytes(column: Column): Uint8Array {
  return new Uint8Array(column.buffer, column.byteOffset, column.byteLength)
}

/** The same numbers, which are whole, as int64: for readers to which 7.0 is not 7. Python took longer to make the one the other, one
 * by one, than for all else that it reads of a plan. */
export function wholeBytes(column: Column): Uint8Array {
  const halves = new Int32Array(2 * column.length)
  for (let i = 0; i < column.length; i++) {
    const value = column[i]!
    halves[2 * i] = value
    halves[2 * i + 1] = Math.floor(value / HALF)
  }
  return new Uint8Array(halves.buffer)
}

export function columnOf(numbers: Iterable<number>): Column {
  return Float64Array.from(numbers)
}

/** Whole numbers from 0 on: ids, tokens, positions, hashes of 53 bits. */
export const counts = column("a whole number from 0 to 2^53", (value) => isWhole(value) && value >= 0)
/** The same, of int64. */
export const wholes = column(
  "a whole number from 0 to 2^53",
  (value) => isWhole(value) && value >= 0,
  wholesIn,
)
/** Whole numbers, −1 where there is none. */
export const indexes = column("a whole number from -1 to 2^53", (value) => isWhole(value) && value >= -1)
/** Times from 0 on, µs. */
export const durations = column("a time from 0 on", (value) => value >= 0 && value < Infinity)

/** Checked in one loop: a schema for each number would cost more than the plan (bench/planner-socket.ts). */
function column(what: string, fits: (value: number) => boolean, read = numbersIn) {
  return z
    .custom<Uint8Array>((value) => value instanceof Uint8Array, "is no column: give the bytes of numbers")
    .transform((bytes, context): Column => {
      const numbers = read(bytes)
      const wrong = numbers?.findIndex((value) => !fits(value))
      if (wrong === -1) return numbers!
      const message =
        numbers === null
          ? `has ${bytes.byteLength} bytes, which is no number of 8 bytes each`
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

function wholesIn(bytes: Uint8Array): Column | null {
  if (bytes.byteLength % BYTES !== 0) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const at = (place: number) => view.getInt32(place + BYTES / 2, true) * HALF + view.getUint32(place, true)
  return Float64Array.from({ length: bytes.byteLength / BYTES }, (_, i) => at(i * BYTES))
}

function isWhole(value: number): boolean {
  return Number.isSafeInteger(value)
}
