/** Calls of given tools as grammars. */
import { literal } from "../constraint/ebnf.ts"
import type { SchemaGrammar } from "../constraint/json-schema.ts"
import type { HeldTool, WrittenCall } from "./format.ts"
import type { Tool } from "./parts.ts"

/** `{"name": …, "arguments": {…}}`, and what follows the arguments. */
export function callBody(
  { name, rule }: HeldTool,
  field: "arguments" | "parameters",
  after = literal("}"),
): string {
  const head = `{"name": ${JSON.stringify(name)}, "${field}": `
  return `${literal(head)} ${rule} ${after}`
}

/** The same as a text. */
export function writtenBody(
  { name, arguments: given }: WrittenCall,
  field: "arguments" | "parameters",
): string {
  return `{"name": ${JSON.stringify(name)}, "${field}": ${JSON.stringify(given)}}`
}

/** Rule of a tool's arguments: always an object. */
export function argumentsRule(grammar: SchemaGrammar, { name, parameters }: Tool): string {
  if (isNothing(parameters)) return `"{}"`
  return grammar.addObject(parameters, { what: `function '${name}'`, param: "tools" })
}

/** A tool without parameters: none are given, or no properties and nothing besides. */
export function isNothing(parameters: unknown): boolean {
  if (parameters === undefined || parameters === null) return true
  if (typeof parameters !== "object" || !("properties" in parameters)) return false
  const { properties } = parameters
  const open = ["additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref"]
  const bare = typeof properties === "object" && properties !== null && Object.keys(properties).length === 0
  return (
    bare &&
    open.every((key) => !(key in parameters) || (parameters as Record<string, unknown>)[key] === false)
  )
}
