/** Where a text spells control tokens, and what lies between. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { ControlTokens } from "./control-tokens.ts"

const list = ["<a>", "<a><b>", "<|x|>", "[I]", ""].map((text, token) => ({ token, text }))
const controls = new ControlTokens(list)

it("finds the longest from the left, and none that overlap", () => {
  expect(controls.find("..<a><b><a>..<|x|>[I")).toEqual([2, 8, 13])
  expect(controls.cut("..<a><b><a>..<|x|>[I", [2, 8, 13])).toEqual(["..", 1, 0, "..", 2, "[I"])
  expect(controls.find("<<a>")).toEqual([1])
  expect(controls.find("")).toEqual([])
})

it("cuts at the offsets that it is given, and nowhere else", () => {
  expect(controls.cut("<a><a>", [3])).toEqual(["<a>", 0])
  expect(controls.cut("<a>", [])).toEqual(["<a>"])
  expect(() => controls.cut("a<a>", [0])).toThrow(RangeError)
})

it("white space that belongs to a token goes with it", () => {
  const greedy = new ControlTokens([
    { token: 7, text: "<l>", eatsLeft: true },
    { token: 8, text: "<r>", eatsRight: true },
  ])
  expect(greedy.cut("a \n<l> b <r> c <r> ", greedy.find("a \n<l> b <r> c <r> "))).toEqual([
    "a",
    7,
    " b ",
    8,
    "c ",
    8,
  ])
})

it("pieces give the text back", () => {
  const text = fc.string({ unit: fc.constantFrom(..."<a><b>|x[I] ") })
  fc.assert(
    fc.property(text, (given) => {
      const pieces = controls.cut(given, controls.find(given))
      expect(pieces.map((piece) => (typeof piece === "number" ? list[piece]!.text : piece)).join("")).toBe(
        given,
      )
      for (const piece of pieces) if (typeof piece === "string") expect(controls.find(piece)).toEqual([])
    }),
  )
})
