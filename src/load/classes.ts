/** SLO classes: what each app's stages are held to, and the deadline arithmetic of one round. */
import { parse } from "yaml"
import { z } from "zod"
import { UserError } from "../errors.ts"
import type { PlannedRound } from "./plan.ts"
import { readText } from "./trace.ts"

/** One class; missing objectives are not judged. */
export interface SloClass {
  ttftMs?: number
  /** Instead of ttftMs: so many times the zero-load prefill time. */
  ttftSlowdown?: number
  tpotMs?: number
  thinkingTpotMs?: number
}
export type SloClasses = Record<string, SloClass>

/** docs/design.md, Workloads: for GPUs and unscaled lengths; a CPU needs laxer TPOTs (--classes). */
export const DEFAULT_CLASSES: Readonly<SloClasses> = {
  chat: { ttftSlowdown: 5, tpotMs: 100 },
  code: { ttftSlowdown: 5, tpotMs: 50 },
  summarize: { ttftSlowdown: 3, tpotMs: 100 },
  reasoning: { ttftSlowdown: 3, thinkingTpotMs: 50, tpotMs: 100 },
  tools: { ttftSlowdown: 3, tpotMs: 50 },
  tools_final: { ttftSlowdown: 3, tpotMs: 100 },
}

/** `--classes`: the server's YAML file of classes, or inline `chat=ttft:5x,tpot:150;code=ttft:800,tpot:100` (a number
 * without a unit is ms). Named classes replace the defaults' of the same name. A file may hold more classes than are
 * used; a name given inline is one of the scenarios' or of `planned` (a saved plan's own), else it is a slip. */
export function readClasses(text: string | undefined, planned: readonly string[] = []): SloClasses {
  if (text === undefined) return { ...DEFAULT_CLASSES }
  const known = [...new Set([...Object.keys(DEFAULT_CLASSES), ...planned])]
  return { ...DEFAULT_CLASSES, ...(text.includes("=") ? inlineClasses(text, known) : fileClasses(text)) }
}

const duration = z.union([z.string(), z.number()])
const fileSchema = z.record(
  z.string(),
  z.object({
    ttft: duration.optional(),
    tpot: duration.optional(),
    thinking_tpot: duration.optional(),
    stages: z
      .object({
        prefill: z.object({ ttft: duration }).optional(),
        thinking: z.object({ tpot: duration }).optional(),
        answer: z.object({ tpot: duration }).optional(),
      })
      .optional(),
  }),
)

function fileClasses(path: string): SloClasses {
  let value: unknown
  try {
    value = parse(readText(path))
  } catch (error) {
    if (error instanceof UserError) throw error
    throw new UserError(
      `${path}: ${(error as Error).message.split("\n")[0]}; expected YAML: name, then ttft and tpot`,
    )
  }
  if (typeof value === "object" && value !== null && "classes" in value) value = value.classes
  const result = fileSchema.safeParse(value)
  if (!result.success) {
    const issue = result.error.issues[0]!
    throw new UserError(`${path}: ${issue.path.join(".") || "file"}: ${issue.message}`)
  }
  const classes: SloClasses = {}
  for (const [name, entry] of Object.entries(result.data)) {
    const slo: SloClass = {}
    const set = (key: "ttft" | "tpot" | "thinking", text: string | number | undefined) => {
      if (text !== undefined && !setObjective(slo, key, String(text))) {
        throw new UserError(
          `${path}: ${name}: ${key} "${text}" is not a duration; write 100ms, 1.5s or (ttft) 5x`,
        )
      }
    }
    set("ttft", entry.stages?.prefill?.ttft ?? entry.ttft)
    set("tpot", entry.stages?.answer?.tpot ?? entry.tpot)
    set("thinking", entry.stages?.thinking?.tpot ?? entry.thinking_tpot)
    classes[name] = slo
  }
  return classes
}

const UNIT_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000, "": 1 }

/** False when the text is not an objective of this kind. */
function setObjective(slo: SloClass, key: "ttft" | "tpot" | "thinking", text: string): boolean {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|x|)\s*$/.exec(text)
  const value = Number(match?.[1])
  if (match === null || !(value > 0) || (match[2] === "x" && key !== "ttft")) return false
  const ms = value * (UNIT_MS[match[2]!] ?? 1)
  if (match[2] === "x") slo.ttftSlowdown = value
  else if (key === "ttft") slo.ttftMs = ms
  else if (key === "tpot") slo.tpotMs = ms
  else slo.thinkingTpotMs = ms
  return true
}

function inlineClasses(text: string, known: readonly string[]): SloClasses {
  const classes: SloClasses = {}
  for (const part of text.split(";").filter((entry) => entry.trim() !== "")) {
    const [name, spec] = part.split("=", 2).map((side) => side.trim()) as [string, string | undefined]
    const slo: SloClass = {}
    for (const item of (spec ?? "").split(",")) {
      const match = /^\s*(ttft|tpot|thinking):(.+)$/.exec(item)
      if (
        name === "" ||
        match === null ||
        !setObjective(slo, match[1] as "ttft" | "tpot" | "thinking", match[2]!)
      ) {
        throw new UserError(
          `--classes: cannot read ${JSON.stringify(part.trim())}; expected a file, or name=ttft:500,tpot:100,thinking:50 ` +
            "(ms; ttft:5x = five zero-load prefill times)",
        )
      }
    }
    if (!known.includes(name))
      throw new UserError(`--classes: nothing uses a class "${name}"; known: ${known.join(", ")}`)
    classes[name] = slo
  }
  return classes
}

/** Time to prefill with nothing else running; the same function for every server compared. */
export interface ZeroLoad {
  ms: number
  msPerToken: number
}

/** The objectives of one round in absolute terms; Infinity = none. */
export interface RoundSlo {
  ttftMs: number
  tpotMs: number
  thinkingTpotMs: number
}

/** `promptTokens`: the round's whole prompt, history included, as if nothing of it were cached. */
export function roundSlo(
  round: PlannedRound,
  promptTokens: number,
  classes: SloClasses,
  zeroLoad: ZeroLoad | undefined,
): RoundSlo {
  const slo = classes[round.class]
  if (slo === undefined) {
    throw new UserError(
      `no SLO class "${round.class}"; give it with --classes (known: ${Object.keys(classes).join(", ")})`,
    )
  }
  const tpotMs = slo.tpotMs ?? Number.POSITIVE_INFINITY
  return {
    ttftMs: slo.ttftMs ?? slowdownMs(slo, round, promptTokens, zeroLoad),
    tpotMs,
    thinkingTpotMs: slo.thinkingTpotMs ?? tpotMs,
  }
}

function slowdownMs(
  slo: SloClass,
  round: PlannedRound,
  promptTokens: number,
  zeroLoad: ZeroLoad | undefined,
): number {
  if (slo.ttftSlowdown === undefined) return Number.POSITIVE_INFINITY
  if (zeroLoad === undefined) {
    throw new UserError(
      `class "${round.class}" has a TTFT of ${slo.ttftSlowdown} zero-load prefill times: say what that is with ` +
        "--zero-load-prefill-ms-per-token (and --zero-load-ms), or give TTFTs in ms with --classes",
    )
  }
  return slo.ttftSlowdown * (zeroLoad.ms + zeroLoad.msPerToken * promptTokens)
}
