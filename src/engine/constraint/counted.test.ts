/** Bounded strings are exact, whatever tokens they come in, and alternatives that begin alike are all followed. */
import fc from "fast-check"
import { beforeAll, expect, test } from "vitest"
import { boundsHeader, boundsOf, markOf } from "./counted.ts"
import { allows } from "./mask.ts"
import { type Judge, judge } from "./testing.ts"

const PIECES = [
  "a",
  "é",
  "日",
  "🙂",
  "abc",
  "ab ",
  'c"',
  'b",',
  '","',
  '\\"',
  "\\\\",
  "\\n",
  "\\u00",
  "e9",
  'x\\"y"',
  "0",
]
const TEXT = `chars ::= "\\"" | [^"\\\\\\x00-\\x1F] chars | "\\\\" (["\\\\n] | "u" [0-9a-f]{4}) chars`
const bounded = (bounds: [number, number][], root: string) =>
  `${boundsHeader(bounds.map(([min, max]) => ({ min, max })))}root ::= ${root}\n${TEXT}`
const string = (index: number) => `"\\"" "${markOf(index)}" chars`

let byPieces: Judge
beforeAll(async () => {
  byPieces = await judge(PIECES)
})

test("the bounds of a grammar come back", () => {
  const bounds = [
    { min: 0, max: 5 },
    { min: 3, max: Infinity },
  ]
  expect(boundsOf(`${boundsHeader(bounds)}root ::= "a"`)).toEqual(bounds)
  expect(boundsOf(`root ::= "a"`)).toEqual([])
})

test("a bounded string is let through exactly when it has so many characters, in bytes and in tokens", async () => {
  const parts = fc.array(fc.constantFrom("a", "b", "é", "日", "🙂", '\\"', "\\\\", "\\n", "\\u00e9", "abc"), {
    maxLength: 7,
  })
  const bounds = fc.tuple(fc.nat({ max: 4 }), fc.constantFrom(0, 1, 2, 5, Infinity))
  await fc.assert(
    fc.asyncProperty(parts, bounds, async (chosen, [min, more]) => {
      const grammar = bounded([[min, min + more]], `"[" ${string(0)} ("," ${string(0)})* "]"`)
      const one = chosen.join("")
      const characters = [...(JSON.parse(`"${one}"`) as string)].length
      const fits = characters >= min && characters <= min + more
      const text = `["${one}","${one}"]`
      expect(await byPieces.accepts(grammar, text, "bytes"), text).toBe(fits)
      // Tokens may not reach beyond the quotation mark that opens a bounded string.
      const cut = await endsIn(byPieces, grammar, text)
      expect(cut, text).toBe(fits)
    }),
    { numRuns: 60, seed: 3 },
  )
})

/** As `accepts`, with the longest tokens that are let through at each place. */
async function endsIn(one: Judge, grammar: string, text: string): Promise<boolean> {
  const follower = await one.start(grammar)
  let rest = text
  while (rest !== "") {
    const mask = await follower.mask()
    const piece = PIECES.toSorted((a, b) => b.length - a.length).find(
      (each) => rest.startsWith(each) && allows(mask, 256 + PIECES.indexOf(each)),
    )
    const text = piece ?? String.fromCodePoint(rest.codePointAt(0)!)
    const tokens = piece ? [256 + PIECES.indexOf(piece)] : [...new TextEncoder().encode(text)]
    for (const token of tokens) if (!(await follower.take(token))) return false
    rest = rest.slice(text.length)
  }
  const done = allows(await follower.mask(), one.vocabulary.ends[0]!)
  follower.dispose()
  return done
}

test("alternatives that begin alike stay open until the text decides", async () => {
  const grammar = bounded(
    [
      [0, 2],
      [4, 6],
    ],
    `${string(0)} | ${string(1)} | "\\"a literal that is long\\"" | "null"`,
  )
  for (const text of ['""', '"ab"', '"abcd"', '"abcdef"', '"a literal that is long"', "null"])
    expect(await byPieces.accepts(grammar, text), text).toBe(true)
  for (const text of ['"abc"', '"abcdefg"', '"a literal that is longer"', '"\u0001Aab"'])
    expect(await byPieces.accepts(grammar, text), text).toBe(false)
})

test("looking ahead changes nothing, however far it gets", async () => {
  const grammar = bounded([[2, 4]], `"[" ${string(0)} ("," ${string(0)} | ",null")* "]"`)
  const follower = await byPieces.start(grammar)
  const bytes = [...new TextEncoder().encode('["ab","abcd",null,"é🙂"]')]
  for (let at = 0; at < bytes.length; at++) {
    const before = await follower.mask()
    const masks = await follower.ahead([...bytes.slice(at, at + 5), 0])
    expect(masks).toHaveLength(1 + Math.min(5, bytes.length - at))
    expect(await follower.mask()).toEqual(before)
    expect(await follower.take(0)).toBe(false)
    expect(await follower.take(bytes[at]!)).toBe(true)
    if (masks.length > 1) expect(await follower.mask()).toEqual(masks[1])
  }
  expect(await follower.take(byPieces.vocabulary.ends[0]!)).toBe(true)
  expect((await follower.mask()).every((word) => word === 0)).toBe(true)
  follower.dispose()
})
