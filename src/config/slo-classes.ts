/** SLO classes: name → latency objectives, read from a YAML file with errors that name the line and field.
 * A class is also an app: the core learns output lengths per class. */
import { readFile } from "node:fs/promises"
import { isMap, isScalar, LineCounter, parseDocument } from "yaml"
import { z } from "zod"
import type { Slo, Tier } from "../core/protocol.ts"
import { UserError, userError } from "../errors.ts"

/** One class. `app` is its index, as the core knows it. */
export interface SloClass {
  name: string
  app: number
  description: string
  slo: Slo
  tier: Tier
  /** The class's requests think before they answer. */
  thinking: boolean
  /** Model names that select this class. */
  aliases: readonly string[]
  /** What keeping the SLO of one of its requests is worth, against 1 for others. */
  worth: number
}

/** The classes of one server and which one is used when a request names none. */
export interface SloClasses {
  all: readonly SloClass[]
  byName: ReadonlyMap<string, SloClass>
  byAlias: ReadonlyMap<string, SloClass>
  default: SloClass
}

/** Bounds on objectives: outside them a value is a slip (seconds for milliseconds), not a wish. */
export const SLO_BOUNDS = {
  ttftUs: { min: 1_000, max: 3_600_000_000, text: "between 1 ms and 1 h" },
  tpotUs: { min: 10, max: 3_600_000_000, text: "between 0.01 ms and 1 h" },
  slowdown: { min: 1, max: 10_000, text: "between 1 and 10000 times the unloaded prefill time" },
} as const

/** The scenarios of docs/design.md, Workloads; TTFT as a multiple of the unloaded prefill time. */
const DEFAULT_SLO_CLASSES: SloClassesFile = {
  default: "chat",
  classes: {
    chat: { description: "A person reads along", ttft: "5x", tpot: "100ms" },
    code: { description: "Completion in an editor", ttft: "5x", tpot: "50ms" },
    summarize: { description: "Long prompt, short answer", ttft: "3x", tpot: "100ms" },
    reasoning: {
      description: "Thinks fast, answers at reading speed",
      stages: { prefill: { ttft: "3x" }, thinking: { tpot: "50ms" }, answer: { tpot: "100ms" } },
    },
    tools: { description: "A tool round: no person reads it", ttft: "3x", tpot: "50ms" },
    tools_final: { description: "The round that answers the person", ttft: "3x", tpot: "100ms" },
    best_effort: { description: "Whatever is left over", tier: "best_effort" },
  },
}

const UNIT_US: Record<string, number> = { us: 1, ms: 1_000, s: 1_000_000, m: 60_000_000 }

/** "100ms" → 100000. Throws a message without a place; callers add it. */
function durationUs(text: string, bounds: { min: number; max: number; text: string }): number {
  const match = /^(\d+(?:\.\d+)?)\s*(us|ms|s|m)$/.exec(text.trim())
  if (match === null)
    throw new Error(`"${text}" is not a duration: write a number and a unit, as 100ms or 1.5s`)
  const us = Number(match[1]) * UNIT_US[match[2]!]!
  if (us < bounds.min || us > bounds.max) throw new Error(`"${text}" must be ${bounds.text}`)
  return us
}

function objective<T>(parse: (text: string) => T) {
  const written = z.union([z.string(), z.number()], { error: "must be a duration, as 100ms or 1.5s" })
  return written.transform((value, context): T => {
    try {
      return parse(String(value))
    } catch (error) {
      context.addIssue({ code: "custom", message: (error as Error).message })
      return z.NEVER
    }
  })
}

const tpot = objective((text) => durationUs(text, SLO_BOUNDS.tpotUs))
const ttft = objective((text) => {
  const times = /^(\d+(?:\.\d+)?)\s*x$/.exec(text.trim())
  if (times === null) return { ttftUs: durationUs(text, SLO_BOUNDS.ttftUs), ttftSlowdown: 0 }
  const slowdown = Number(times[1])
  const bounds = SLO_BOUNDS.slowdown
  if (slowdown < bounds.min || slowdown > bounds.max) throw new Error(`"${text}" must be ${bounds.text}`)
  return { ttftUs: Number.POSITIVE_INFINITY, ttftSlowdown: slowdown }
})

const WORTH = "must be a number from 0.001 to 1000"

const classSchema = z
  .strictObject({
    description: z.string().optional(),
    ttft: ttft.optional(),
    tpot: tpot.optional(),
    thinking_tpot: tpot.optional(),
    stages: z
      .strictObject({
        prefill: z.strictObject({ ttft }).optional(),
        thinking: z.strictObject({ tpot }).optional(),
        answer: z.strictObject({ tpot }).optional(),
      })
      .optional(),
    tier: z.enum(["slo", "best_effort"]).optional(),
    aliases: z.array(z.string().min(1)).optional(),
    worth: z.number().min(0.001, WORTH).max(1000, WORTH).optional(),
  })
  .check((context) => {
    const c = context.value
    const flat = c.ttft !== undefined || c.tpot !== undefined || c.thinking_tpot !== undefined
    const complain = (message: string) => context.issues.push({ code: "custom", message, input: c, path: [] })
    if (flat && c.stages !== undefined) complain("give either `stages` or ttft/tpot/thinking_tpot, not both")
    else if (c.tier === "best_effort" && (flat || c.stages !== undefined))
      complain("a best_effort class has no objectives: remove them or the tier")
    else if (c.tier !== "best_effort" && !flat && Object.keys(c.stages ?? {}).length === 0)
      complain("has no objective: give ttft and tpot, or `tier: best_effort`")
  })

const fileSchema = z.strictObject({
  default: z.string().optional(),
  classes: z.record(
    z.string().regex(/^[A-Za-z][\w-]*$/, "a class name is a letter, then letters, digits, - and _"),
    classSchema,
  ),
})
/** What YAML authors call the schema's types. */
const SHAPES: Record<string, string> = {
  record: "a map of names to classes",
  object: "a map of fields",
  array: "a list",
}

/** The file as written, before durations are read. */
export type SloClassesFile = z.input<typeof fileSchema>

/** Reads a config file. Throws a UserError that names the file, line and field. */
export async function readSloClasses(path: string): Promise<SloClasses> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw userError("config_not_readable", { path, detail: error.code ?? error.message }, { cause: error })
  })
  return parseSloClasses(text, path)
}

/** `path` is only for messages. */
export function parseSloClasses(text: string, path: string): SloClasses {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines })
  const at = (offset: number | undefined) =>
    offset === undefined ? path : `${path}:${lines.linePos(offset).line}`
  const broken = document.errors[0]
  if (broken !== undefined)
    throw userError("config_invalid", {
      path: at(broken.pos[0]),
      detail: broken.message.split("\n")[0]!.replace(/ at line .*$/, ""),
    })
  const parsed = fileSchema.safeParse(document.toJS({ maxAliasCount: 100 }) ?? {})
  if (parsed.success) {
    try {
      return buildClasses(parsed.data)
    } catch (error) {
      if (error instanceof UserError) throw userError("config_invalid", { path, detail: error.message })
      throw error
    }
  }
  const issue = parsed.error.issues[0]!
  const keys = issue.code === "unrecognized_keys" ? [issue.keys[0]!] : []
  const fieldPath = [...issue.path, ...keys].map(String)
  const message =
    issue.code === "unrecognized_keys"
      ? "is not a field this server knows"
      : (issue.code === "invalid_key" ? (issue.issues[0] ?? issue) : issue).message.replace(
          /^Invalid input: expected (\w+), received (\w+)$/,
          (_, expected, found) =>
            found === "undefined"
              ? "is missing"
              : `must be ${SHAPES[expected] ?? `a ${expected}`}, not a ${found}`,
        )
  const field = fieldPath.join(".") || "the file"
  throw userError("config_invalid", {
    path: at(offsetOf(document.contents, fieldPath)),
    detail: `${field} ${message}`.trim(),
  })
}

/** Where in the file the deepest existing key of a path is. */
function offsetOf(root: unknown, path: string[]): number | undefined {
  let node = root
  let offset: number | undefined
  for (const name of path) {
    if (!isMap(node)) break
    const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === name)
    if (pair === undefined) break
    offset = isScalar(pair.key) ? pair.key.range?.[0] : offset
    node = pair.value
  }
  return offset
}

/** The built-in classes. */
export function defaultSloClasses(): SloClasses {
  return buildClasses(fileSchema.parse(DEFAULT_SLO_CLASSES))
}

function buildClasses(file: z.output<typeof fileSchema>): SloClasses {
  const all = Object.entries(file.classes).map(([name, c], app): SloClass => {
    const answer = c.stages?.answer?.tpot ?? c.tpot ?? Number.POSITIVE_INFINITY
    const thinking = c.stages?.thinking?.tpot ?? c.thinking_tpot
    const first = c.stages?.prefill?.ttft ?? c.ttft ?? { ttftUs: Number.POSITIVE_INFINITY, ttftSlowdown: 0 }
    return {
      name,
      app,
      description: c.description ?? "",
      slo: { ...first, tpotUs: answer, thinkingTpotUs: thinking ?? answer, maxGapUs: Infinity },
      tier: c.tier === "best_effort" ? "bestEffort" : "slo",
      thinking: thinking !== undefined,
      aliases: c.aliases ?? [],
      worth: c.worth ?? 1,
    }
  })
  const byName = new Map(all.map((c) => [c.name, c]))
  const first = all[0]
  if (first === undefined) throw new UserError("classes must name at least one class")
  const chosen = file.default === undefined ? first : byName.get(file.default)
  if (chosen === undefined)
    throw new UserError(
      `default names the class "${file.default}", but the classes are ${[...byName.keys()].join(", ")}`,
    )
  const byAlias = new Map<string, SloClass>()
  for (const c of all)
    for (const alias of c.aliases) {
      const other = byAlias.get(alias)
      if (other !== undefined)
        throw new UserError(`alias "${alias}" is given to both ${other.name} and ${c.name}`)
      byAlias.set(alias, c)
    }
  return { all, byName, byAlias, default: chosen }
}
