/** Strings of a schema: of bounded length, of a format, after a pattern. */
import { jsonCharacters, type Ranges } from "./code-points.ts"
import { FORMATS, group } from "./ebnf.ts"
import { type PatternGraph, patternGraph, UnsupportedPattern } from "./pattern.ts"
import type { SchemaParts } from "./schema-parts.ts"
import type { Schema } from "./schema-size.ts"

const MOST_LENGTH = 1_000_000

/** Formats that say what a text is for, or that are the numbers' own, and restrict no character of it. */
const ANNOTATIONS = new Set(
  "password binary path file-path directory-path textarea markdown html int32 int64 uint32 uint64 float double decimal".split(
    " ",
  ),
)

/** Body of a rule for a string with its quotation marks. */
export function stringBody(schema: Schema, at: string, parts: SchemaParts): string {
  const min = parts.count(schema, "minLength", at, MOST_LENGTH)
  const max = parts.count(schema, "maxLength", at, MOST_LENGTH)
  if (max !== null && max < (min ?? 0)) throw parts.wrong(at, "maxLength is less than minLength")
  const bounded = (min ?? 0) > 0 || max !== null
  const mark = bounded ? `${parts.mark({ min: min ?? 0, max: max ?? Infinity }, at)} ` : ""
  const format = schema.format ?? null
  if (schema.pattern !== undefined && schema.pattern !== null) {
    const rule = patternRule(
      schema.pattern,
      at,
      parts,
      typeof format === "string" && !bounded ? format : null,
    )
    if (rule !== null) return `"\\"" ${mark}${rule}`
  }
  if (format !== null && !isAnnotation(format)) return formatBody(format, bounded, at, parts)
  return bounded ? `"\\"" ${mark}chars` : "string"
}

function isAnnotation(format: unknown): boolean {
  return typeof format === "string" && ANNOTATIONS.has(format)
}

function formatBody(name: unknown, bounded: boolean, at: string, parts: SchemaParts): string {
  const format = typeof name === "string" ? ownFormat(name) : undefined
  if (format === undefined || bounded)
    throw parts.unsupported(at, `format ${JSON.stringify(name)}${format ? " with a length" : ""}`)
  const mark = format.max === undefined ? "" : parts.mark({ min: 0, max: format.max }, at)
  return `"\\"" ${mark} ${group(format.body)} "\\""`
}

function ownFormat(name: string): (typeof FORMATS)[string] | undefined {
  return Object.hasOwn(FORMATS, name) ? FORMATS[name] : undefined
}

/** Rule of what follows the opening quotation mark, the closing one included. null: the pattern is more than can be kept, and
 * the format beside it, which is known, says as much. */
function patternRule(pattern: unknown, at: string, parts: SchemaParts, format: string | null): string | null {
  if (typeof pattern !== "string") throw parts.wrong(at, "pattern must be a string")
  try {
    return graphRule(patternGraph(pattern), parts)
  } catch (error) {
    if (!(error instanceof UnsupportedPattern)) throw error
    if (format !== null && ownFormat(format) !== undefined) return null
    throw parts.unsupported(at, `pattern ${JSON.stringify(pattern).slice(0, 200)} (${error.message})`)
  }
}

/** A rule for each node: what may come after it, and the `end` where the text may end. */
export function graphRule(
  { characters, first, follow, last, empty }: PatternGraph,
  parts: Pick<SchemaParts, "name" | "rule" | "named">,
  written: (ranges: Ranges) => string[] = jsonCharacters,
  end = '"\\""',
): string {
  const names = characters.map(() => parts.name("re"))
  const bodies = characters.map(written)
  const going = (to: readonly number[], ends: boolean) => [
    ...to.flatMap((node) => bodies[node]!.map((body) => `${body} ${names[node]!}`)),
    ...(ends ? [end] : []),
  ]
  for (const [node, to] of follow.entries()) {
    const choices = going(to, last.has(node))
    // What nothing can follow is never reached: its characters were none.
    parts.rule(names[node]!, choices.length === 0 ? end : choices.join(" | "))
  }
  const choices = going(first, empty)
  if (choices.length === 0) throw new UnsupportedPattern("nothing that matches it")
  return parts.named("pattern", choices.join(" | "))
}
