/** SLO classes: name → latency objectives, of a config file's `classes` section or of one line of a command. A class is also an app: the core learns output lengths per class. */
import { z } from "zod"
import type { Slo, Tier } from "../core/protocol.ts"
import { UserError } from "../errors.ts"
import { complaintsOf, FieldError, fieldName } from "./complaints.ts"
import { maxGap, tpot, ttft } from "./objectives.ts"

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
  /** By app, those that are no more included. */
  names: readonly string[]
  all: readonly SloClass[]
  byName: ReadonlyMap<string, SloClass>
  byAlias: ReadonlyMap<string, SloClass>
  default: SloClass
}

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

const WORTH = "must be a number from 0.001 to 1000"

const classSchema = z
  .strictObject({
    description: z.string().optional(),
    ttft: ttft
      .optional()
      .describe("time to first token: 800ms, 1.5s, or 5x (times the prompt takes on an idle server)"),
    tpot: tpot.optional().describe("time per output token"),
    thinking_tpot: tpot.optional().describe("the same while the model thinks"),
    max_gap: maxGap.optional().describe("longest time between two tokens"),
    stages: z
      .strictObject({
        prefill: z.strictObject({ ttft }).optional(),
        thinking: z.strictObject({ tpot }).optional(),
        answer: z.strictObject({ tpot }).optional(),
      })
      .optional(),
    tier: z.enum(["slo", "best_effort"]).optional(),
    aliases: z.array(z.string().min(1)).optional().describe("model names that select the class"),
    worth: z
      .number()
      .min(0.001, WORTH)
      .max(1000, WORTH)
      .optional()
      .describe("what keeping one of its SLOs is worth, against 1"),
  })
  .check((context) => {
    const c = context.value
    const flat = c.ttft !== undefined || c.tpot !== undefined || c.thinking_tpot !== undefined
    const some = flat || c.max_gap !== undefined
    const complain = (message: string) => context.issues.push({ code: "custom", message, input: c, path: [] })
    if (flat && c.stages !== undefined) complain("give either `stages` or ttft/tpot/thinking_tpot, not both")
    else if (c.tier === "best_effort" && (some || c.stages !== undefined))
      complain("a best_effort class has no objectives: remove them or the tier")
    else if (c.tier !== "best_effort" && !some && Object.keys(c.stages ?? {}).length === 0)
      complain("has no objective: give ttft and tpot, or `tier: best_effort`")
  })

export const classesSchema = z
  .record(
    z.string().regex(/^[A-Za-z][\w-]*$/, "a class name is a letter, then letters, digits, - and _"),
    classSchema,
  )
  .describe("SLO classes by name; in their place the built-in ones (examples/slo-classes.yaml)")

/** Classes as written, before durations are read. */
export interface SloClassesFile {
  default?: string
  classes: z.input<typeof classesSchema>
}

/** The built-in classes, as a file would have them. */
export const BUILT_IN_CLASSES = DEFAULT_SLO_CLASSES

const INLINE = "name=ttft:500,tpot:100,thinking:50,gap:400;… (ms; ttft:5x = five unloaded prefill times)"
/** Words of the inline form, as YAML has them. */
const INLINE_FIELDS: Record<string, string> = {
  ttft: "ttft",
  tpot: "tpot",
  thinking: "thinking_tpot",
  gap: "max_gap",
}

/** One line of classes: `chat=ttft:5x,tpot:150;code=ttft:1.5s`, as YAML but that numbers may go without a unit: ms.
 * `option` is only for messages. */
export function parseInlineClasses(text: string, option: string): SloClasses {
  const classes: SloClassesFile["classes"] = {}
  for (const part of text.split(";").filter((entry) => entry.trim() !== "")) {
    const [name = "", objectives = ""] = part.split("=", 2).map((side) => side.trim())
    const refuse = (why: string) =>
      new UserError(`${option}: ${why} in ${JSON.stringify(part.trim())}; expected ${INLINE}`)
    const own: Record<string, string> = {}
    for (const item of objectives.split(",")) {
      const [word = "", value] = item.split(":", 2).map((side) => side.trim())
      const field = Object.hasOwn(INLINE_FIELDS, word) ? INLINE_FIELDS[word] : undefined
      if (name === "" || field === undefined || value === undefined)
        throw refuse(`cannot read "${item.trim()}"`)
      own[field] = /^\d+(\.\d+)?$/.test(value) ? `${value}ms` : value
    }
    const parsed = classesSchema.safeParse({ [name]: own })
    if (!parsed.success) {
      const { field, message } = complaintsOf(parsed.error, classesSchema)[0]!
      throw refuse(`${fieldName(field)} ${message}`)
    }
    classes[name] = own
  }
  if (Object.keys(classes).length === 0) throw new UserError(`${option} names no class; expected ${INLINE}`)
  return buildClasses({ classes: classesSchema.parse(classes) })
}

/** The built-in classes. */
export function defaultSloClasses(): SloClasses {
  const { default: name, classes } = DEFAULT_SLO_CLASSES
  return buildClasses({ default: name, classes: classesSchema.parse(classes) })
}

/** Throws UserError where names do not go together. */
export function buildClasses(file: {
  default?: string | undefined
  classes: z.output<typeof classesSchema>
}): SloClasses {
  const all = Object.entries(file.classes).map(([name, c], app): SloClass => {
    const answer = c.stages?.answer?.tpot ?? c.tpot ?? Number.POSITIVE_INFINITY
    const thinking = c.stages?.thinking?.tpot ?? c.thinking_tpot
    const first = c.stages?.prefill?.ttft ?? c.ttft ?? { ttftUs: Number.POSITIVE_INFINITY, ttftSlowdown: 0 }
    return {
      name,
      app,
      description: c.description ?? "",
      slo: {
        ...first,
        tpotUs: answer,
        thinkingTpotUs: thinking ?? answer,
        maxGapUs: c.max_gap ?? Number.POSITIVE_INFINITY,
      },
      tier: c.tier === "best_effort" ? "bestEffort" : "slo",
      thinking: thinking !== undefined,
      aliases: c.aliases ?? [],
      worth: c.worth ?? 1,
    }
  })
  const byName = new Map(all.map((c) => [c.name, c]))
  const first = all[0]
  if (first === undefined) throw new FieldError(["classes"], "must name at least one class")
  const chosen = file.default === undefined ? first : byName.get(file.default)
  if (chosen === undefined)
    throw new FieldError(
      ["default"],
      `names the class "${file.default}", but the classes are ${[...byName.keys()].join(", ")}`,
    )
  const byAlias = new Map<string, SloClass>()
  for (const c of all)
    for (const alias of c.aliases) {
      const other = byAlias.get(alias)
      if (other !== undefined)
        throw new FieldError(
          ["classes", c.name, "aliases"],
          `the alias "${alias}" is given to both ${other.name} and ${c.name}`,
        )
      byAlias.set(alias, c)
    }
  return { names: all.map(({ name }) => name), all, byName, byAlias, default: chosen }
}

/** These classes become those: all that has them sees it at once. Each keeps its app, by which its answers' lengths are learnt; new ones
 * get the next. Answers with the names that would be too many (`mostApps`), and changes nothing then. */
export function renewClasses(classes: SloClasses, next: SloClasses, mostApps: number): string[] {
  const names = [...classes.names]
  for (const { name } of next.all) if (!names.includes(name)) names.push(name)
  if (names.length > mostApps) return names.slice(mostApps)
  const own = (c: SloClass): SloClass => ({ ...c, app: names.indexOf(c.name) })
  const all = next.all.map(own)
  const byName = new Map(all.map((c) => [c.name, c]))
  const byAlias = new Map([...next.byAlias].map(([alias, { name }]) => [alias, byName.get(name)!]))
  const renewed: SloClasses = { names, all, byName, byAlias, default: byName.get(next.default.name)! }
  Object.assign(classes, renewed)
  return []
}
