/** Streaming detokenization equals decoding the whole, however bytes are split over tokens. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { Detokenizer } from "./detokenizer.ts"

/** A tokenizer whose tokens are indexes into `pieces`. */
function piecesOf(pieces: Uint8Array[]) {
  return { bytes: (token: number) => pieces[token]! }
}

function stream(pieces: Uint8Array[]): string[] {
  const detokenizer = new Detokenizer(piecesOf(pieces))
  return [...pieces.map((_, i) => detokenizer.push(i)), detokenizer.flush()]
}

function split(bytes: Uint8Array, cuts: number[]): Uint8Array[] {
  const at = [0, ...cuts.map((c) => c % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, i) => bytes.slice(at[i], end))
}

const text = fc.string({ unit: "grapheme", maxLength: 40 })
const cuts = fc.array(fc.nat(400), { maxLength: 30 })

describe("Detokenizer", () => {
  test("any split of valid UTF-8 gives the text, and never half a character", () => {
    fc.assert(
      fc.property(text, cuts, (whole, where) => {
        const parts = stream(split(new TextEncoder().encode(whole), where))
        expect(parts.join("")).toBe(whole)
        for (const part of parts) expect(part.isWellFormed()).toBe(true)
      }),
    )
  })

  test("any split of any bytes gives what decoding them at once gives", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), cuts, (bytes, where) => {
        const whole = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)
        expect(stream(split(bytes, where)).join("")).toBe(whole)
      }),
    )
  })

  test("a character split over three tokens appears with its last byte", () => {
    const [a, b, c] = new TextEncoder().encode("€")
    expect(stream([Uint8Array.of(a!), Uint8Array.of(b!), Uint8Array.of(c!)])).toEqual(["", "", "€", ""])
  })

  test("an unfinished character is replaced at the end, and the next text starts clean", () => {
    const detokenizer = new Detokenizer(piecesOf([Uint8Array.of(0xe2), Uint8Array.of(0x61)]))
    expect(detokenizer.push(0)).toBe("")
    expect(detokenizer.flush()).toBe("\ufffd")
    expect(detokenizer.push(1)).toBe("a")
  })
})
