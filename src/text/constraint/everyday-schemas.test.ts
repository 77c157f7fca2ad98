/** Schemas as everyday tools write them: what fits them passes, what does not does not. XGrammar itself is the judge. */
import { beforeAll, describe, expect, it, test } from "vitest"
import { z } from "zod"
import { type Judge, judge } from "../../engine/constraint/testing.ts"
import { parseExactly } from "./exact-json.ts"
import { outputGrammar } from "./grammar.ts"

let byBytes: Judge
beforeAll(async () => {
  byBytes = await judge()
})

const grammarOf = (schema: unknown) =>
  outputGrammar({
    text: { kind: "schema", what: "it", schema, param: "response_format" },
    calls: [],
    parallel: true,
  })!

async function expectFits(schema: unknown, good: readonly unknown[], bad: readonly unknown[]): Promise<void> {
  const grammar = grammarOf(schema)
  for (const value of good)
    expect(await byBytes.accepts(grammar, JSON.stringify(value)), `${JSON.stringify(value)}`).toBe(true)
  for (const value of bad)
    expect(await byBytes.accepts(grammar, JSON.stringify(value)), `${JSON.stringify(value)}`).toBe(false)
}

const category = z.object({
  name: z.string(),
  get sub() {
    return z.array(category)
  },
})

describe("zod", () => {
  const cases: [string, z.ZodType, unknown[], unknown[]][] = [
    ["integers", z.int(), [0, -5, 9007199254740991], [1.5, "1"]],
    ["32-bit integers", z.int32(), [2147483647, -2147483648], [2147483648]],
    ["positive numbers", z.number().positive().lt(10), [0.5, 9.999], [0, 10, -1]],
    ["steps", z.number().multipleOf(0.01), [1.25, 3, -0.5], [1.255]],
    ["emails", z.email(), ["a.b@c-d.org"], ["a@b", "@b.org"]],
    ["uuids", z.uuid(), ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567-e89b-92d3-a456-42661417400"]],
    ["urls", z.url(), ["https://a.org/b?c=d#e", "http://localhost:8080"], ["a b", "nothing"]],
    [
      "dates with times",
      z.iso.datetime(),
      ["2024-02-29T12:00:00Z", "2024-02-28T12:00:00.5Z"],
      ["2023-02-29T12:00:00Z", "2024-02-28"],
    ],
    ["dates", z.iso.date(), ["2024-02-29"], ["2023-02-29"]],
    ["addresses", z.ipv4(), ["192.168.0.1"], ["256.1.1.1"]],
    ["base64", z.base64(), ["", "YQ==", "YWJj"], ["YQ"]],
    ["phone numbers", z.e164(), ["+4915112345678"], ["0151"]],
    ["ids", z.nanoid(), ["V1StGXR8_Z5jdHi6B-myT"], ["short"]],
    [
      "regular expressions",
      z.string().regex(/^[A-Z]{2}-\d{1,3}("x")?\\?$/),
      ["AB-1", 'AB-12"x"', "AB-123\\"],
      ["ab-1", "AB-1234", "AB-1/"],
    ],
    ["beginnings and ends", z.string().startsWith("a.").max(5), ["a.", "a.é🙂x"], ["b.", "a.1234"]],
    ["texts that have something in them", z.string().includes("é"), ["é", "--é--"], ["e"]],
    [
      "template literals",
      z.templateLiteral([z.literal(["px", "em"]), ":", z.int()]),
      ["px:12", "em:-3"],
      ["px:", "pt:1"],
    ],
    ["maps", z.record(z.string(), z.int()), [{}, { a: 1, b: 2 }], [{ a: "1" }]],
    [
      "maps with given names",
      z.record(z.enum(["a", "b"]), z.int()),
      [{ a: 1, b: 2 }],
      [{ a: 1, c: 2 }, { a: 1 }],
    ],
    [
      "maps with names of a form",
      z.record(z.string().regex(/^x-/), z.null()),
      [{ "x-a": null }],
      [{ a: null }],
    ],
    ["tuples", z.tuple([z.string(), z.int()]), [["a", 1]], [["a"], [1, "a"], ["a", 1, 2]]],
    ["tuples that go on", z.tuple([z.string()], z.int()), [["a"], ["a", 1, 2]], [["a", "b"]]],
    [
      "what may be null or left out",
      z.object({ a: z.int().nullable(), b: z.string().optional() }),
      [{ a: null }, { a: 1, b: "x" }],
      [{ b: "x" }],
    ],
    ["unions", z.union([z.int(), z.literal("x")]), [1, "x"], ["y"]],
    [
      "discriminated unions",
      z.discriminatedUnion("k", [
        z.object({ k: z.literal("a"), x: z.int() }),
        z.object({ k: z.literal("b") }),
      ]),
      [{ k: "a", x: 1 }, { k: "b" }],
      [{ k: "a" }, { k: "c" }],
    ],
    [
      "intersections",
      z.intersection(z.object({ a: z.int() }), z.object({ b: z.int() })),
      [{ a: 1, b: 2 }],
      [{ a: 1 }, { b: 2 }],
    ],
    ["recursion", category, [{ name: "a", sub: [{ name: "b", sub: [] }] }], [{ name: "a", sub: [{}] }]],
    [
      "what people are told",
      z
        .string()
        .meta({ title: "T", description: "D", examples: ["x"], owner: "me", deprecated: true })
        .default("x"),
      ["a"],
      [1],
    ],
    [
      "extracted parts",
      z.object({ a: z.int().meta({ id: "Part", description: "A" }), b: z.int() }),
      [{ a: 1, b: 2 }],
      [{ a: "1", b: 2 }],
    ],
    ["strict and loose objects", z.looseObject({ a: z.int() }), [{ a: 1 }, { a: 1, b: "x" }], [{ b: 1 }]],
  ]
  test.each(cases)("%s", async (_, schema, good, bad) => {
    for (const value of good) expect(schema.safeParse(value).success, JSON.stringify(value)).toBe(true)
    for (const io of ["input", "output"] as const) {
      const made = z.toJSONSchema(schema, { io })
      await expectFits(made, good, bad)
    }
  })
})

describe("Pydantic", () => {
  const schema = {
    $defs: {
      Color: { enum: ["red", "green"], title: "Color", type: "string" },
      Point: {
        properties: { x: { title: "X", type: "number" } },
        required: ["x"],
        title: "Point",
        type: "object",
      },
    },
    properties: {
      color: { $ref: "#/$defs/Color", default: "red", description: "Of it." },
      at: { anyOf: [{ $ref: "#/$defs/Point" }, { type: "null" }], default: null },
      old: { allOf: [{ $ref: "#/$defs/Point" }], title: "Old" },
      count: { exclusiveMinimum: 0, maximum: 10, title: "Count", type: "integer" },
      price: {
        anyOf: [{ type: "number" }, { pattern: "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$", type: "string" }],
        title: "Price",
      },
      when: { format: "date-time", title: "When", type: "string" },
      path: { format: "path", type: "string" },
      pair: {
        maxItems: 2,
        minItems: 2,
        prefixItems: [{ type: "integer" }, { type: "string" }],
        type: "array",
      },
      scores: { additionalProperties: { type: "number" }, title: "Scores", type: "object" },
      keyed: { patternProperties: { "^[a-z]+$": { type: "integer" } }, type: "object" },
    },
    required: ["color", "at", "old", "count", "price", "when", "path", "pair", "scores", "keyed"],
    title: "Model",
    type: "object",
  }
  const good = {
    ...{
      color: "green",
      at: null,
      old: { x: 1.5 },
      count: 10,
      price: 2.5,
      when: "2024-01-01T00:00:00Z",
      path: "/a/b",
    },
    ...{ pair: [1, "a"], scores: { a: 1, b: 2.5 }, keyed: { ab: 1 } },
  }

  it("writes models with references, annotations, tuples, maps, decimals", async () => {
    const wrong = {
      color: "blue",
      at: 1,
      old: null,
      count: 0,
      when: "now",
      pair: [1],
      scores: { a: "1" },
      keyed: { A: 1 },
    }
    await expectFits(
      schema,
      [good],
      Object.entries(wrong).map(([key, value]) => ({ ...good, [key]: value })),
    )
  })
})

describe("OpenAPI and MCP", () => {
  const cases: [string, unknown, unknown[], unknown[]][] = [
    [
      "nullable, example, x-…, format of a number",
      { type: "integer", format: "int64", nullable: true, example: 1, "x-order": 2, xml: { name: "a" } },
      [1, null],
      ["1"],
    ],
    ["bounds that are out, as flags", { type: "number", minimum: 1, exclusiveMinimum: true }, [1.5], [1]],
    [
      "allOf of several",
      {
        allOf: [
          { type: "object", properties: { a: { type: "integer" } }, required: ["a"] },
          { type: "object", properties: { b: { type: "string" } }, required: ["b"] },
        ],
      },
      [{ a: 1, b: "x" }],
      [{ a: 1 }],
    ],
    [
      "a base and more",
      {
        $ref: "#/$defs/base",
        properties: { b: { const: 1 } },
        required: ["b"],
        $defs: { base: { type: "object", properties: { a: { const: 2 } }, required: ["a"] } },
      },
      [{ a: 2, b: 1 }],
      [{ a: 2 }, { b: 1 }],
    ],
    [
      "choices beside properties",
      {
        type: "object",
        properties: { a: { const: 1 }, b: { const: 2 } },
        anyOf: [{ required: ["a"] }, { required: ["b"] }],
      },
      [{ a: 1 }, { b: 2 }],
      [{}],
    ],
    [
      "tuples of draft 7",
      { type: "array", items: [{ type: "integer" }, { type: "string" }], additionalItems: false },
      [[1, "a"]],
      [[1], [1, "a", 2]],
    ],
    ["types as a list", { type: ["string", "null"], minLength: 1 }, ["a", null], ["", 1]],
    ["keywords of another type", { type: "integer", minLength: 3, properties: {} }, [1], ["abc"]],
    [
      "names that must be there and are not declared",
      { type: "object", properties: {}, required: ["a"], additionalProperties: { type: "integer" } },
      [{ a: 1 }],
      [{}, { a: "x" }],
    ],
    [
      "what says nothing",
      { $schema: "http://json-schema.org/draft-07/schema#", title: "a", markdownDescription: "b" },
      [1, "a", [{}]],
      [],
    ],
  ]
  test.each(cases)("%s", async (_, schema, good, bad) => {
    await expectFits(schema, good, bad)
  })
})

describe("what JavaScript's own parser loses", () => {
  it("is kept: the order of names, and whole numbers of any length", async () => {
    const schema = parseExactly(
      '{"type":"object","properties":{"b":{"const":12345678901234567890},"1":{"enum":[9007199254740993,2]}},"required":["b","1"]}',
    )
    const grammar = grammarOf(schema)
    expect(await byBytes.accepts(grammar, '{"b":12345678901234567890,"1":9007199254740993}')).toBe(true)
    expect(await byBytes.accepts(grammar, '{"1":2,"b":12345678901234567890}')).toBe(false)
    expect(await byBytes.accepts(grammar, '{"b":12345678901234567000,"1":2}')).toBe(false)
  })

  it("is kept in bounds", async () => {
    const schema = parseExactly(
      '{"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807}',
    )
    const grammar = grammarOf(schema)
    for (const good of ["9223372036854775807", "-9223372036854775808", "0"])
      expect(await byBytes.accepts(grammar, good), good).toBe(true)
    for (const bad of ["9223372036854775808", "-9223372036854775809"])
      expect(await byBytes.accepts(grammar, bad), bad).toBe(false)
  })
})

test.each([
  ["a great part of what is beyond ASCII", { type: "string", pattern: "[一-龥]" }, /beyond ASCII/],
  ["all but one of it", { type: "string", pattern: "^[^é]$" }, /beyond ASCII/],
  ["lookaheads", { type: "string", pattern: "^(?=a)" }, /lookahead/],
  ["sets", { type: "array", uniqueItems: true }, /"uniqueItems"/],
  ["negations", { not: { type: "string" } }, /"not"/],
  ["steps that are no power of ten", { type: "integer", multipleOf: 7 }, /multipleOf/],
  ["contradictions", { allOf: [{ type: "string" }, { type: "integer" }] }, /different things/],
])("%s are refused", (_, schema, message) => {
  expect(() => grammarOf(schema)).toThrow(message)
})

describe("other forms", () => {
  const formOf = (text: object) =>
    outputGrammar({ text: { param: "it", ...text } as never, calls: [], parallel: true })!
  test.each([
    [
      "a regular expression",
      { kind: "regex", pattern: "(?:a|b)+ \\d{2}|[^x]" },
      ["ab 12", "y", '"'],
      ["a 1", "x", "a 12 "],
    ],
    [
      "characters beyond ASCII",
      { kind: "regex", pattern: "[à-ü]+|[ж-я]\\S|." },
      ["é", "üà", "жя", "ж🙂", "中", "{"],
      ["ÿz", "ж ", "\n", "éa"],
    ],
    ["a choice", { kind: "choice", choices: ["yes", 'no "', "1\n"] }, ["yes", 'no "', "1\n"], ["maybe", "y"]],
    [
      "a grammar",
      { kind: "grammar", text: 'root ::= "root" (" " word root)?\n# root ::= no\nword ::= [a-z"root"]+\n' },
      ["root", "root abcroot"],
      ["no", "root "],
    ],
  ])("%s", async (_, form, good, bad) => {
    const grammar = formOf(form)
    for (const one of good) expect(await byBytes.accepts(grammar, one), one).toBe(true)
    for (const one of bad) expect(await byBytes.accepts(grammar, one), one).toBe(false)
  })
})
