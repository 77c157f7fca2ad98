/** Which tokens go on after a byte: found in one pass over a vocabulary, as by looking into each of them. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { Spellings } from "./free-text.ts"
import { vocabularyWith } from "./testing.ts"

test("tokens that go on after a byte are those that have it before their last", () => {
  const texts = fc.array(fc.string({ unit: fc.constantFrom("a", ">", '"', "é"), maxLength: 5 }), {
    maxLength: 20,
  })
  fc.assert(
    fc.property(texts, fc.constantFrom("a", ">", "z"), (texts, byte) => {
      const spellings = new Spellings(vocabularyWith(texts))
      const expected = texts.flatMap((text, i) =>
        Buffer.from(text).toString("latin1").slice(0, -1).includes(byte) ? [256 + i] : [],
      )
      expect(spellings.over(byte)).toEqual(expected)
    }),
  )
})
