/** The SLO classes of a plan's rounds in ms, and the deadline arithmetic of one round. */
import { readSloClasses } from "../config/file.ts"
import {
  type SloClass as ConfiguredClass,
  defaultSloClasses,
  parseInlineClasses,
} from "../config/slo-classes.ts"
import type { Slo } from "../core/protocol.ts"
import { UserError } from "../errors.ts"
import type { PlannedRound } from "./plan.ts"

/** One class; missing objectives are not judged. Plain data without Infinity: it goes into result files. */
export interface SloClass {
  ttftMs?: number
  /** Instead of ttftMs: so many times the zero-load prefill time. */
  ttftSlowdown?: number
  tpotMs?: number
  thinkingTpotMs?: number
  /** Longest time between two tokens. */
  maxGapMs?: number
}
export type SloClasses = Record<string, SloClass>

/** `--classes`: the server's YAML file of classes, or inline `chat=ttft:5x,tpot:150;code=ttft:800,tpot:100`. Named
 * classes replace the defaults' of the same name (which are for GPUs and unscaled lengths; a CPU needs laxer TPOTs). A file
 * may hold more classes than are used; a name given inline is one of the scenarios' or of `planned` (a saved plan's own),
 * else it is a slip. */
export function readClasses(text: string | undefined, planned: readonly string[] = []): SloClasses {
  // No scenario has best-effort requests.
  const classes = inMs(defaultSloClasses().all.filter(({ tier }) => tier === "slo"))
  if (text === undefined) return classes
  if (!text.includes("=")) return { ...classes, ...inMs(readSloClasses(text).all) }
  const own = parseInlineClasses(text, "--classes").all
  const known = [...new Set([...Object.keys(classes), ...planned])]
  const slip = own.find(({ name }) => !known.includes(name))
  if (slip !== undefined)
    throw new UserError(`--classes: nothing uses a class "${slip.name}"; known: ${known.join(", ")}`)
  return { ...classes, ...inMs(own) }
}

function inMs(classes: readonly ConfiguredClass[]): SloClasses {
  return Object.fromEntries(classes.map(({ name, slo, thinking }) => [name, objectivesMs(slo, thinking)]))
}

function objectivesMs(slo: Slo, thinking: boolean): SloClass {
  const { ttftUs, ttftSlowdown, tpotUs, thinkingTpotUs, maxGapUs } = slo
  return {
    ...(ttftSlowdown > 0 && { ttftSlowdown }),
    ...(Number.isFinite(ttftUs) && { ttftMs: ttftUs / 1000 }),
    ...(Number.isFinite(tpotUs) && { tpotMs: tpotUs / 1000 }),
    ...(thinking && { thinkingTpotMs: thinkingTpotUs / 1000 }),
    ...(Number.isFinite(maxGapUs) && { maxGapMs: maxGapUs / 1000 }),
  }
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
  maxGapMs: number
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
    maxGapMs: slo.maxGapMs ?? Number.POSITIVE_INFINITY,
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
