/** The fast argmax against the plain one. */
import fc from "fast-check"
import { expect, test } from "vitest"
import { argmax } from "./logits.ts"

test("argmax is the first of the largest, at any length", () => {
  const value = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constant(-Infinity), fc.float({ noNaN: true }))
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 40 }), (values) => {
      const row = Float32Array.from(values)
      expect(argmax(row)).toBe(row.indexOf(row.reduce((a, b) => Math.max(a, b))))
    }),
    { seed: 1 },
  )
})
