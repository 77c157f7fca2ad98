/** Prefix hashes: equal exactly where the tokens so far are equal. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { prefixHashes, saltOf, sessionNumber } from "./prefix.ts"

const tokens = fc
  .array(fc.integer({ min: 0, max: 3 }), { maxLength: 40 })
  .map((list) => Int32Array.from(list))

it("hashes full blocks only, and agrees exactly on common prefixes", () => {
  fc.assert(
    fc.property(tokens, tokens, fc.integer({ min: 1, max: 5 }), (a, b, block) => {
      const [x, y] = [prefixHashes(a, block), prefixHashes(b, block)]
      expect(x).toHaveLength(Math.floor(a.length / block))
      for (let i = 0; i < Math.min(x.length, y.length); i++) {
        const end = (i + 1) * block
        const same = a.slice(0, end).every((token, at) => token === b[at])
        expect(x[i] === y[i]).toBe(same)
      }
    }),
  )
})

it("has no collision among many blocks, and depends on the salt", () => {
  const long = Int32Array.from({ length: 200_000 }, (_, i) => i % 7)
  const hashes = prefixHashes(long, 1)
  expect(new Set(hashes).size).toBe(hashes.length)
  expect(hashes.every(Number.isSafeInteger)).toBe(true)
  const secret = Uint8Array.of(1, 2, 3)
  const [a, b] = [saltOf(secret, "a"), saltOf(secret, "b")]
  expect(new Set([...prefixHashes(long, 16, a), ...prefixHashes(long, 16, b)]).size).toBe(25_000)
  expect(saltOf(secret, "a")).toEqual(a)
  expect(saltOf(Uint8Array.of(1, 2, 4), "a")).not.toEqual(a)
  expect(sessionNumber("a")).not.toBe(sessionNumber("b"))
  expect(sessionNumber("a", a)).not.toBe(sessionNumber("a", b))
})
