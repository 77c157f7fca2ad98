/** Grammars made of JSON schemas, judged by XGrammar itself: which texts it lets through. */
import fc from "fast-check"
import { beforeAll, describe, expect, it, test } from "vitest"
import { type Judge, judge } from "../../engine/constraint/testing.ts"
import { UserError } from "../../errors.ts"
import { outputGrammar } from "./grammar.ts"

let byBytes: Judge
beforeAll(async () => {
  byBytes = await judge()
})
const accepts = (grammar: string, text: string) => byBytes.accepts(grammar, text)

const grammarOf = (schema: unknown) =>
  outputGrammar({
    text: { kind: "schema", what: "response_format 'it'", schema, param: "response_format" },
    calls: [],
    parallel: true,
  })!

const string = { type: "string" }
const person = {
  type: "object",
  properties: {
    name: string,
    age: { type: "integer", minimum: 0 },
    'a "b" \\ü': { type: ["number", "null"] },
  },
  required: ["name", "age", 'a "b" \\ü'],
  additionalProperties: false,
}
const tree = {
  $ref: "#/$defs/node",
  $defs: {
    node: {
      type: "object",
      properties: { value: string, next: { anyOf: [{ $ref: "#/$defs/node" }, { type: "null" }] } },
      required: ["value", "next"],
    },
  },
}
const optional = { type: "object", properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 } } }
const of = (format: string) => ({ type: "string", format })

const cases: [string, unknown, readonly string[], readonly string[]][] = [
  [
    "objects with every property, in order",
    person,
    [
      '{"name": "Zoë \\n \\u00e9", "age": 3, "a \\"b\\" \\\\ü": -1.5e3}',
      '{"name":"","age":0,"a \\"b\\" \\\\ü":null}',
    ],
    [
      '{"name":"a","age":-1,"a \\"b\\" \\\\ü":1}',
      '{"name":"a"}',
      '{"age":1,"name":"a","a \\"b\\" \\\\ü":1}',
      "[]",
      "",
    ],
  ],
  ["recursion", tree, ['{"value":"a","next":{"value":"b","next":null}}'], ['{"value":"a","next":{}}']],
  ["recursion from the root", { type: "array", items: { $ref: "#" } }, ["[[], [[]]]", "[]"], ["[1]", "[[}"]],
  [
    "optional properties",
    { ...optional, required: ["b"] },
    ['{"b":2}', '{"a":1,"b":2}', '{"b":2,"c":3}', '{"a":1,"b":2,"c":3}'],
    ["{}", '{"a":1}', '{"a":1,"c":3}', '{"b":2,}', '{,"b":2}', '{"b":2,"d":4}'],
  ],
  ["only optional properties", optional, ["{}", '{"c":3}', '{"a":1,"c":3}'], ['{"c":3,"a":1}', '{"a":2}']],
  [
    "maps",
    { type: "object", properties: { a: { const: 1 } }, additionalProperties: { type: "integer" } },
    ["{}", '{"a":1}', '{"a":1,"x":2,"y":3}', '{"x":2}'],
    ['{"x":"y"}', '{"x":2,}'],
  ],
  ["any object", { type: "object" }, ["{}", '{"a": [1, {"b": null}], "c": true}'], ["[]", "1"]],
  ["nothing declared, nothing allowed", { type: "object", additionalProperties: false }, ["{}"], ['{"a":1}']],
  ["anything", {}, ["1", '"a"', "[1, 2]", "null"], ["a", "01", "1."]],
  [
    "arrays with bounds",
    { type: "array", items: { type: "boolean" }, minItems: 2, maxItems: 3 },
    ["[true, false]", "[true,true,true]"],
    ["[]", "[true]", "[true,true,true,true]", "[1,2]"],
  ],
  ["at most one item", { type: "array", items: string, maxItems: 1 }, ["[]", '["a"]'], ['["a","b"]']],
  [
    "tuples",
    { type: "array", prefixItems: [string, { type: "integer" }] },
    ['["a", 1]'],
    ['["a"]', '["a",1,2]'],
  ],
  [
    "enums of any type",
    { enum: ["a", 1, null, { b: [1] }] },
    ['"a"', "1", "null", '{"b":[1]}'],
    ['"b"', "2"],
  ],
  ["enums narrowed by a type", { type: "string", enum: ["a", 1] }, ['"a"'], ["1"]],
  [
    "lengths",
    { type: "string", minLength: 2, maxLength: 3 },
    ['"ab"', '"üüü"', '"\\n\\"🙂"', '"\\u00e9ab"'],
    ['"a"', '"abcd"', '"\\n\\n\\n\\n"', '"\\u00e9abc"', '"\\n"', '"a\tb"', '"\u0001Aab"', '"\u0001ab"'],
  ],
  ["no text", { type: "string", maxLength: 0 }, ['""'], ['"a"']],
  ["at least a text", { type: "string", minLength: 1 }, ['"a"', `"${"long ".repeat(99)}"`], ['""']],
  [
    "several lengths",
    {
      type: "array",
      items: {
        prefixItems: [
          { type: "string", maxLength: 1 },
          { type: "string", minLength: 3 },
        ],
      },
    },
    ['[["a", "abc"], ["", "abcd"]]'],
    ['[["ab", "abc"]]', '[["a", "ab"]]'],
  ],
  [
    "alternatives of strings",
    {
      anyOf: [
        { type: "string", maxLength: 2 },
        { type: "string", minLength: 4, maxLength: 6 },
        { type: "null" },
      ],
    },
    ['"abcd"', "null"],
    ['"abcdefg"', '"abc"'],
  ],
  [
    "integer ranges",
    { type: "integer", minimum: -2, exclusiveMaximum: 11 },
    ["-2", "0", "10"],
    ["-3", "11", "1.0", "-0", "00"],
  ],
  [
    "wide ranges of integers",
    { type: "integer", minimum: 5, exclusiveMaximum: 123_456_789 },
    ["5", "99", "123456788"],
    ["4", "-5", "123456789", "999999999", "1e3"],
  ],
  ["integers from a bound on", { type: "integer", minimum: -12 }, ["-12", "0", "9999999"], ["-13", "-99"]],
  [
    "numbers within bounds",
    { type: "number", minimum: 0, maximum: 1 },
    ["0", "1", "0.5", "1.0", "0.000001"],
    ["1.5", "1.000001", "-0.1", "2", "1e-1", "00.5"],
  ],
  [
    "numbers to a bound",
    { type: "number", exclusiveMaximum: -1.25 },
    ["-1.251", "-2", "-17.5", "-123456"],
    ["-1.25", "-1.2", "0", "1.3"],
  ],
  ["positive integers", { type: "integer", exclusiveMinimum: 0 }, ["1", "120"], ["0", "-1", "01"]],
  ["numbers from 0", { type: "number", minimum: 0 }, ["0", "0.5", "1e9"], ["-1", "1e999"]],
  [
    "dates",
    of("date"),
    ['"2024-02-29"', '"2000-02-29"', '"2023-02-28"', '"2023-12-31"', '"2023-11-30"'],
    ['"2024-13-01"', '"24-01-01"', '"2023-02-29"', '"1900-02-29"', '"2023-02-30"', '"2023-04-31"'],
  ],
  [
    "times",
    of("date-time"),
    ['"2024-02-29T23:59:59.5Z"', '"2024-02-29T00:00:00+01:00"'],
    ['"2024-02-29 10:00"'],
  ],
  ["durations", of("duration"), ['"P1DT2H"', '"PT5M"', '"P3W"'], ['"P"', '"1D"', '"P1DT"']],
  [
    "addresses",
    { anyOf: [of("email"), of("ipv4"), of("ipv6")] },
    ['"a.b@c.de"', '"10.0.0.255"', '"1:2:3:4:5:6:7:8"'],
    ['"a@"', '"10.0.0.256"', `"a@${"b".repeat(64)}.de"`],
  ],
  [
    "identifiers",
    { oneOf: [of("uuid"), of("hostname")] },
    ['"123e4567-e89b-12d3-a456-426614174000"', '"a-b.example"'],
    ['"-a"', '"a..b"'],
  ],
]

describe("a schema's grammar lets through what the schema allows, and nothing else", () => {
  test.each(cases)("%s", async (_, schema, good, bad) => {
    const grammar = grammarOf(schema)
    for (const text of good) expect(await accepts(grammar, text), text).toBe(true)
    for (const text of bad) expect(await accepts(grammar, text), text).toBe(false)
  })
})

describe("says which part of a schema it cannot keep", () => {
  test.each([
    ["values", { enum: Array.from({ length: 5001 }, (_, i) => i) }, /more than 5000 choices/],
    ["alternatives", { anyOf: Array(5001).fill({}) }, /more than 5000 choices/],
    [
      "items",
      { prefixItems: Array(20).fill({ type: "array", maxItems: 900 }) },
      /items come to more than 10000/,
    ],
    [
      "required names",
      { required: Array.from({ length: 1_000_000 }, (_, i) => `${i}`) },
      /at most 30000 values/,
    ],
    ["characters", { const: "x".repeat(300_001) }, /at most 300000 characters/],
    ["levels in a constant", { const: nested(400) }, /more than 300 levels/],
    [
      "lengths",
      { prefixItems: Array.from({ length: 65 }, (_, i) => ({ type: "string", maxLength: i })) },
      /more than 64 different lengths/,
    ],
  ])("too many %s", (_, schema, message) => {
    expect(() => grammarOf(schema)).toThrow(message)
  })

  test.each([
    [{ type: "string", pattern: "^(?=a)" }, /pattern .*lookahead/],
    [
      { type: "object", properties: { a: { type: "array", uniqueItems: true } } },
      /#\/properties\/a, "uniqueItems"/,
    ],
    [{ type: "integer", minimum: 1e19 }, /minimum beyond/],
    [{ type: "number", minimum: 1, exclusiveMaximum: 1 }, /no number/],
    [{ type: "number", multipleOf: 0.5 }, /multipleOf/],
    [{ type: "string", maxLength: 1e9 }, /maxLength above 1000000/],
    [{ type: "string", format: "constructor" }, /format "constructor"/],
    [{ type: "string", format: "iri" }, /format "iri"/],
    [{ allOf: [{ type: "object" }, { type: "string" }] }, /allOf/],
    [{ anyOf: [{ not: {} }], type: "object" }, /"not"/],
    [{ type: "object", patternProperties: { "^a": {} }, additionalProperties: {} }, /patternProperties/],
    [{ $ref: "http://example.com/x" }, /\$ref/],
    [{ $ref: "#/$defs/gone" }, /leads nowhere/],
    [{ $ref: "#/%zz" }, /leads nowhere/],
    [{ $ref: "#" }, /leads back to itself/],
    [loop(), /leads back to itself/],
    [{ type: "strin" }, /no type "strin"/],
    [{ type: [] }, /no type/],
    [{ enum: [] }, /list of values/],
    [{ type: "object", required: ["a"], additionalProperties: false }, /no property/],
    [{ type: "array", maxItems: 1e9 }, /maxItems above 1000/],
    [{ type: "array", minItems: 2, maxItems: 1 }, /less than/],
    [{ type: "integer", minimum: 2, maximum: 1 }, /no integer/],
    [deep(), /nested/],
    [[], /must be an object/],
    [{ properties: { a: false } }, /must be an object/],
  ])("%j", (schema, message) => {
    const error = (() => {
      try {
        return grammarOf(schema)
      } catch (thrown) {
        return thrown
      }
    })()
    expect(error).toBeInstanceOf(UserError)
    expect((error as UserError).message).toMatch(message)
    expect(error).toMatchObject({ status: 400, param: "response_format", code: "invalid_json_schema" })
  })
})

/** B begins with C and C with B; found only through an object in between. */
function loop() {
  const ref = (name: string) => ({ $ref: `#/$defs/${name}` })
  const D = { type: "object", properties: { c: ref("C") } }
  return {
    type: "object",
    properties: { b: ref("B") },
    $defs: { B: { anyOf: [D, ref("C")] }, C: { anyOf: [{ type: "null" }, ref("B")] } },
  }
}
function nested(levels: number) {
  let value: unknown = 1
  for (let i = 0; i < levels; i++) value = [value]
  return value
}
function deep() {
  let schema: object = { type: "string" }
  for (let i = 0; i < 100; i++) schema = { type: "array", items: schema }
  return schema
}

const small = fc.nat({ max: 4 })
/** Schemas with every keyword, right and wrong, and references wherever they may lead. */
const { schema: anySchema } = fc.letrec<{ schema: unknown }>((tie) => {
  const some = fc.array(tie("schema"), { maxLength: 3 })
  const names = fc.constantFrom("a", 'b "c"', "-é\n\\", "")
  const fields = fc.record(
    {
      type: fc.constantFrom("object", "array", "string", "integer", "number", "boolean", "null", [
        "null",
        "string",
      ]),
      properties: fc.dictionary(names, tie("schema"), { maxKeys: 3 }),
      required: fc.array(names, { maxLength: 1 }),
      additionalProperties: fc.oneof(fc.boolean(), tie("schema")),
      items: tie("schema"),
      minItems: small,
      maxItems: small,
      minLength: small,
      maximum: fc.integer({ min: -9, max: 9 }),
      minimum: fc.constantFrom(-3, 0, 1),
      format: fc.constantFrom("date", "uuid", "odd"),
      anyOf: some,
      enum: fc.array(fc.jsonValue({ maxDepth: 1 }), { maxLength: 3 }),
      $ref: fc.constantFrom("#", "#/properties/a", "#/items", "#/anyOf/0", "nowhere"),
      title: fc.string(),
    },
    { requiredKeys: [] },
  )
  const few = fc.tuple(fields, fc.nat({ max: 3 })).map(([all, keep]) => {
    return Object.fromEntries(Object.entries(all).slice(-1 - keep))
  })
  return {
    schema: fc.oneof({ maxDepth: 3, withCrossShrink: true }, fc.constant({ type: "string" }), few, few),
  }
})

it("whatever the schema, the answer is a grammar that XGrammar takes, or an error for the user", async () => {
  let grammars = 0
  await fc.assert(
    fc.asyncProperty(anySchema, async (schema) => {
      try {
        expect(await accepts(grammarOf(schema), "?")).toBe(false)
        grammars++
      } catch (error) {
        if (!(error instanceof UserError)) throw error
      }
    }),
    { numRuns: 400, interruptAfterTimeLimit: 20_000 },
  )
  expect(grammars).toBeGreaterThan(40)
})
