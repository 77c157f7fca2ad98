/** SLO classes: name → latency objectives, read from a YAML file (which may have tenants and backends as well) with errors that name the
 * line and field, or from one line of a command. A class is also an app: the core learns output lengths per class. */
import { readFileSync } from "node:fs"
import { isMap, isScalar, LineCounter, parseDocument } from "yaml"
import { z } from "zod"
import type { Slo, Tier } from "../core/protocol.ts"
import { UserError, userError } from "../errors.ts"
import { type BackendConfig, backendsSchema, buildBackends } from "./backends.ts"
import { maxGap, tpot, ttft } from "./objectives.ts"
import { buildTenants, type TenantConfig, tenantsSchema } from "./tenants.ts"

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
    ttft: ttft.optional(),
    tpot: tpot.optional(),
    thinking_tpot: tpot.optional(),
    max_gap: maxGap.optional(),
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
    const some = flat || c.max_gap !== undefined
    const complain = (message: string) => context.issues.push({ code: "custom", message, input: c, path: [] })
    if (flat && c.stages !== undefined) complain("give either `stages` or ttft/tpot/thinking_tpot, not both")
    else if (c.tier === "best_effort" && (some || c.stages !== undefined))
      complain("a best_effort class has no objectives: remove them or the tier")
    else if (c.tier !== "best_effort" && !some && Object.keys(c.stages ?? {}).length === 0)
      complain("has no objective: give ttft and tpot, or `tier: best_effort`")
  })

/** What a config file says. */
export interface ServerConfig {
  classes: SloClasses
  tenants: TenantConfig[]
  backends: BackendConfig[]
}

const fileSchema = z.strictObject({
  default: z.string().optional(),
  tenants: tenantsSchema.optional(),
  backends: backendsSchema.optional(),
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
export function readConfig(path: string): ServerConfig {
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw userError("config_not_readable", { path, detail: code ?? message }, { cause: error })
  }
  return parseConfig(text, path)
}

/** The classes of a config file. */
export function readSloClasses(path: string): SloClasses {
  return readConfig(path).classes
}

export function parseSloClasses(text: string, path: string): SloClasses {
  return parseConfig(text, path).classes
}

/** `path` is only for messages. */
export function parseConfig(text: string, path: string): ServerConfig {
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
  const parsed = fileSchema.safeParse(withClasses(document.toJS({ maxAliasCount: 100 }) ?? {}))
  if (parsed.success) {
    try {
      const { tenants = {}, backends = [] } = parsed.data
      return {
        ...{ classes: buildClasses(parsed.data), tenants: buildTenants(tenants) },
        backends: buildBackends(backends),
      }
    } catch (error) {
      if (error instanceof UserError) throw userError("config_invalid", { path, detail: error.message })
      throw error
    }
  }
  const { field, message } = complaintOf(parsed.error)
  throw userError("config_invalid", {
    path: at(offsetOf(document.contents, field)),
    detail: `${field.join(".") || "the file"} ${message}`.trim(),
  })
}

/** A file that has tenants or backends alone has the built-in classes. */
function withClasses(file: object): object {
  return ("tenants" in file || "backends" in file) && !("classes" in file)
    ? { ...DEFAULT_SLO_CLASSES, ...file }
    : file
}

/** The first thing that is wrong, and where. */
function complaintOf({ issues }: z.ZodError): { field: string[]; message: string } {
  const issue = issues[0]!
  if (issue.code === "unrecognized_keys") {
    const field = [...issue.path, issue.keys[0]!].map(String)
    return { field, message: "is not a field this server knows" }
  }
  const { message } = issue.code === "invalid_key" ? (issue.issues[0] ?? issue) : issue
  const readable = message.replace(/^Invalid input: expected (\w+), received (\w+)$/, (_, expected, found) =>
    found === "undefined" ? "is missing" : `must be ${SHAPES[expected] ?? `a ${expected}`}, not a ${found}`,
  )
  return { field: issue.path.map(String), message: readable }
}

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
    const parsed = fileSchema.safeParse({ classes: { [name]: own } })
    if (!parsed.success) {
      const { field, message } = complaintOf(parsed.error)
      throw refuse(`${field.slice(1).join(".")} ${message}`)
    }
    classes[name] = own
  }
  if (Object.keys(classes).length === 0) throw new UserError(`${option} names no class; expected ${INLINE}`)
  return buildClasses(fileSchema.parse({ classes }))
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
