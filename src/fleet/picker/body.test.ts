/** Bodies are read as JSON objects, and written anew without touching what was not asked for. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { UserError } from "../../errors.ts"
import { readFields, withFields } from "./body.ts"

const written = (text: string, added: Record<string, unknown>) => {
  const body = Buffer.from(text)
  return withFields(body, readFields(body), added).toString()
}

it("adds at the end, and leaves the rest byte by byte", () => {
  expect(written('{ "seed" : 12345678901234567890, "a": [1.0] }\n', { priority: 7 })).toBe(
    '{ "seed" : 12345678901234567890, "a": [1.0] ,"priority":7}',
  )
  expect(written(" {} ", { a: 1 })).toBe(' {"a":1}')
  expect(written('{"a":"}"}', { b: 1 })).toBe('{"a":"}","b":1}')
})

it("hands the same buffer on where nothing is added", () => {
  const body = Buffer.from('{"a":1}')
  expect(withFields(body, readFields(body), {})).toBe(body)
})

it("replaces what is there once, and rounds no other number", () => {
  const text = written('{"seed":12345678901234567890,"priority":1,"t":1e400,"x":0.10}', { priority: -5 })
  expect(text).toBe('{"seed":12345678901234567890,"priority":-5,"t":1e400,"x":0.10}')
})

it("reads as the same object with the fields added, whatever stands in it", () => {
  const values = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 5 })
  fc.assert(
    fc.property(values, values, fc.constantFrom("", " ", "\n\t"), (fields, added, space) => {
      const text = `${space}${JSON.stringify(fields)}${space}`
      const expected = { ...JSON.parse(JSON.stringify(fields)), ...JSON.parse(JSON.stringify(added)) }
      expect(JSON.parse(written(text, added))).toEqual(expected)
    }),
  )
})

it.each(["", "{", "[]", "null", "1", '"x"', "nul", '{"a":1}}'])("refuses %j", (text) => {
  expect(() => readFields(Buffer.from(text))).toThrow(UserError)
})
