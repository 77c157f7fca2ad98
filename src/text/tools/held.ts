/** Answers in which a model may call tools or not: free text, and calls that keep to their tools' schemas from where they begin. */
import { partMark } from "../../engine/constraint/counted.ts"
import { held, type Zones } from "../../engine/constraint/zones.ts"
import { UserError } from "../../errors.ts"
import { alternatives, literal } from "../constraint/ebnf.ts"
import type { SchemaGrammar } from "../constraint/json-schema.ts"
import { argumentsRule } from "./bodies.ts"
import type { HeldAnswer, HeldTool } from "./format.ts"
import type { Tool } from "./parts.ts"

/** As their schemas say. Throws UserError for what a grammar cannot keep. */
export function heldTools(grammar: SchemaGrammar, tools: readonly Tool[]): HeldTool[] {
  return tools.map((tool) => ({ ...tool, rule: argumentsRule(grammar, tool), kept: true }))
}

/** Rules of the schemas of tools, about: a second of compiling with a large vocabulary. Further tools are held to an object. */
const MOST_RULES = 1500

/** As their schemas say, where a grammar can keep them; else their arguments are any object. Throws UserError where a tool
 * that is to be `strict` cannot be kept. */
export function heldWhereKept(grammar: SchemaGrammar, tools: readonly Tool[]): HeldTool[] {
  return tools.map((tool) => {
    const tried = tool.strict === true || (tool.strict !== false && grammar.size < MOST_RULES)
    const rule = tried ? triedRule(grammar, tool) : null
    const kept = rule !== null
    return { ...tool, rule: kept ? grammar.named("arguments", rule) : "object", kept }
  })
}

function triedRule(grammar: SchemaGrammar, tool: Tool): string | null {
  try {
    return grammar.tried(() => argumentsRule(grammar, tool))
  } catch (error) {
    if (tool.strict === true || !(error instanceof UserError)) throw error
    return null
  }
}

/** Text that begins a call, and body of what comes after it. */
export interface CallMark {
  mark: string
  after: string
  /** No text follows. Left out: free text does. */
  last?: true
}

/** Free text in which calls begin with marks, or the whole answer is a bare call of one of some tools. What is thought before it is free of both. */
export function freeAnswer(
  grammar: SchemaGrammar,
  tools: readonly HeldTool[],
  marks: readonly CallMark[],
): HeldAnswer {
  const [first, thoughts, answer, free] = [0, 1, 2, 3]
  const bare = bareCalls(grammar, tools)
  const lead = {
    calls: bare.map(({ head }, i) => [head, held(marks.length + i)] as const),
    names: tools.map(quoted),
    to: free,
  }
  const zones: Zones["zones"] = [
    { calm: false, until: [["<think>", thoughts]], lead },
    { calm: true, until: [["</think>", answer]] },
    { calm: false, until: [], lead },
    { calm: true, until: marks.map(({ mark }, i) => [mark, held(i)]) },
  ]
  return {
    parts: [...marks.map(({ after }) => after), ...bare.map(({ body }) => body)],
    zones: {
      from: first,
      zones,
      parts: [...marks.map(({ last }) => (last ? null : free)), ...bare.map(() => null)],
    },
  }
}

/** The same grammar where the prompt has begun the thoughts. */
export function thinkingFirst(grammar: string): string {
  return grammar.replace(/^# zones \{"from":0,/m, '# zones {"from":1,')
}

/** Body of a grammar's first rule: one of these parts. */
export function partsBody(parts: readonly string[]): string {
  return parts.map((part, i) => `${literal(partMark(i))} ${part}`).join(" | ")
}

const quoted = ({ name }: Tool): string => JSON.stringify(name)

/** Answers that are nothing but JSON of calls of some tools: what is before a tool's name, and body of what begins with that. */
function bareCalls(grammar: SchemaGrammar, tools: readonly HeldTool[]): { head: string; body: string }[] {
  if (tools.length === 0) return []
  const calls = tools.map((tool) => `${literal(quoted(tool))} bare-key ${tool.rule} ws "}"`)
  grammar.rule("bare-key", `ws "," ws ("\\"arguments\\"" | "\\"parameters\\"") ws ":" ws`)
  grammar.rule("bare", alternatives(calls))
  grammar.rule("bare-call", `"{" ws "\\"name\\"" ws ":" ws bare`)
  return [
    { head: ` { "name" : `, body: `bare (ws ";" ws bare-call)*` },
    { head: ` [ { "name" : `, body: `bare (ws "," ws bare-call)* ws "]"` },
  ]
}
