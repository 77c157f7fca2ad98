/** Which SLO a request gets: from its body, headers, service tier or model alias, in that order
 * (docs/design.md, API conventions). */

import { SLO_BOUNDS } from "../config/objectives.ts"
import type { SloClass, SloClasses } from "../config/slo-classes.ts"
import type { Slo } from "../core/protocol.ts"
import { userError } from "../errors.ts"
import type { ResolvedSlo } from "../replica/generation.ts"

export type { ResolvedSlo } from "../replica/generation.ts"

/** The request body's own `slo` object. */
export interface SloBody {
  ttft_ms?: number | null | undefined
  ttft_slowdown?: number | null | undefined
  tpot_ms?: number | null | undefined
  thinking_tpot_ms?: number | null | undefined
  max_gap_ms?: number | null | undefined
  class?: string | null | undefined
  session?: string | null | undefined
  /** Count the first n output tokens as thinking, whatever their text (replays with forced lengths). */
  thinking_tokens?: number | null | undefined
}

export type ServiceTier = "auto" | "default" | "flex" | "priority"

export interface SloSource {
  slo?: SloBody | null | undefined
  serviceTier?: ServiceTier | null | undefined
  headers: Readonly<Record<string, string | string[] | undefined>>
  /** Class selected by the model name (`model:class` or an alias), if any. */
  modelClass: SloClass | null
}

const NO_OBJECTIVE: Slo = {
  ttftUs: Number.POSITIVE_INFINITY,
  ttftSlowdown: 0,
  tpotUs: Number.POSITIVE_INFINITY,
  thinkingTpotUs: Number.POSITIVE_INFINITY,
  maxGapUs: Number.POSITIVE_INFINITY,
}

/** Precedence: body `slo` > x-llm-d-slo-* (or x-slo-*) > class named in body or objective header >
 * service_tier > model alias > the default class. */
export function resolveSlo(classes: SloClasses, source: SloSource): ResolvedSlo {
  const own = ownObjectives(source)
  const named = namedClass(classes, source)
  const base = named ?? source.modelClass ?? classes.default
  const hasOwn = Object.keys(own).length > 0
  const flex = named === null && source.serviceTier === "flex"
  const paid = source.serviceTier === "priority" || source.serviceTier === "default"
  // A best-effort model alias asked for with service_tier "priority" gets the default class's objectives.
  const from = named === null && paid && base.tier === "bestEffort" ? classes.default : base
  const tier = hasOwn ? "slo" : flex ? "bestEffort" : from.tier
  const template = tier === "bestEffort" ? NO_OBJECTIVE : from.slo
  const slo: Slo = { ...template, ...own }
  if (own.tpotUs !== undefined && own.thinkingTpotUs === undefined && !from.thinking)
    slo.thinkingTpotUs = slo.tpotUs
  const thinking = from.thinking || own.thinkingTpotUs !== undefined
  return { class: from, slo, tier, priority: source.serviceTier === "priority", thinking }
}

function namedClass(classes: SloClasses, source: SloSource): SloClass | null {
  const inBody = source.slo?.class ?? undefined
  const name = inBody ?? header(source, "x-llm-d-inference-objective")?.value
  if (name === undefined) return null
  const found = classes.byName.get(name)
  if (found !== undefined) return found
  const param = inBody === undefined ? "x-llm-d-inference-objective" : "slo.class"
  throw userError(
    "slo_class_not_found",
    { name, available: [...classes.byName.keys()].join(", ") },
    { param },
  )
}

/** The objectives that the request itself gives, in µs. */
function ownObjectives(source: SloSource): Partial<Slo> {
  const own: Partial<Slo> = {}
  const body = source.slo ?? {}
  const ttft = given(body.ttft_ms, "slo.ttft_ms") ?? headerNumber(source, "slo-ttft-ms")
  const slowdown = given(body.ttft_slowdown, "slo.ttft_slowdown")
  if (slowdown !== undefined && given(body.ttft_ms, "") !== undefined)
    throw userError(
      "invalid_slo",
      { name: "slo.ttft_slowdown", reason: "give either slo.ttft_ms or slo.ttft_slowdown, not both" },
      { param: "slo.ttft_slowdown" },
    )
  if (slowdown !== undefined) {
    own.ttftSlowdown = within(slowdown.value, slowdown.param, SLO_BOUNDS.slowdown)
    own.ttftUs = Number.POSITIVE_INFINITY
  } else if (ttft !== undefined) {
    own.ttftUs = within(ttft.value * 1000, ttft.param, SLO_BOUNDS.ttftUs)
    own.ttftSlowdown = 0
  }
  const tpot = given(body.tpot_ms, "slo.tpot_ms") ?? headerNumber(source, "slo-tpot-ms")
  if (tpot !== undefined) own.tpotUs = within(tpot.value * 1000, tpot.param, SLO_BOUNDS.tpotUs)
  const thinking =
    given(body.thinking_tpot_ms, "slo.thinking_tpot_ms") ?? headerNumber(source, "slo-thinking-tpot-ms")
  if (thinking !== undefined)
    own.thinkingTpotUs = within(thinking.value * 1000, thinking.param, SLO_BOUNDS.tpotUs)
  const gap = given(body.max_gap_ms, "slo.max_gap_ms") ?? headerNumber(source, "slo-max-gap-ms")
  if (gap !== undefined) own.maxGapUs = within(gap.value * 1000, gap.param, SLO_BOUNDS.maxGapUs)
  return own
}

function given(
  value: number | null | undefined,
  param: string,
): { value: number; param: string } | undefined {
  return value === null || value === undefined ? undefined : { value, param }
}

function within(value: number, param: string, bounds: { min: number; max: number; text: string }): number {
  if (value >= bounds.min && value <= bounds.max) return Math.round(value * 1000) / 1000
  throw userError("invalid_slo", { name: param, reason: `the value must be ${bounds.text}` }, { param })
}

function header(source: SloSource, name: string): { value: string; param: string } | undefined {
  const value = source.headers[name]
  return value === undefined
    ? undefined
    : { value: Array.isArray(value) ? value.join(", ") : value, param: name }
}

function headerNumber(source: SloSource, name: string): { value: number; param: string } | undefined {
  const found = header(source, `x-llm-d-${name}`) ?? header(source, `x-${name}`)
  if (found === undefined) return undefined
  const value = found.value.trim() === "" ? Number.NaN : Number(found.value)
  if (Number.isFinite(value)) return { value, param: found.param }
  throw userError(
    "invalid_slo",
    { name: found.param, reason: `"${found.value.slice(0, 40)}" is not a number of milliseconds` },
    { param: found.param },
  )
}
