/** Which SLO a request gets: from its body, headers, service tier or model alias, in that order
 * (docs/design.md, API conventions). */

import { SLO_BOUNDS } from "../config/objectives.ts"
import type { SloClass, SloClasses } from "../config/slo-classes.ts"
import type { Slo, Tier } from "../core/protocol.ts"
import { userError } from "../errors.ts"
import type { ResolvedSlo } from "../replica/generation.ts"
import { SLO_ARGS_FIELD, type SloArgs } from "./slo-args.ts"

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
  /** Of the body as well (`vllm_xargs`): what `slo` does not say. */
  args?: SloArgs | null | undefined
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

/** Precedence: body `slo` > its `vllm_xargs` > x-llm-d-slo-* (or x-slo-*) > class named in body or objective header >
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
  const tier = askedTier(source, from, hasOwn) ?? (hasOwn ? "slo" : flex ? "bestEffort" : from.tier)
  const template = tier === "bestEffort" ? NO_OBJECTIVE : from.slo
  const slo: Slo = { ...template, ...own }
  if (own.tpotUs !== undefined && own.thinkingTpotUs === undefined && !from.thinking)
    slo.thinkingTpotUs = slo.tpotUs
  const thinking = from.thinking || own.thinkingTpotUs !== undefined
  return { class: from, slo, tier, priority: source.serviceTier === "priority", thinking }
}

/** llm-d's name: said for this server, so that an unknown class is a mistake. */
export const OBJECTIVE_HEADER = "x-llm-d-inference-objective"
/** The Gateway API's name: said for whatever stands there. Its objectives are priorities elsewhere, so one that names no
 * class here is served as if there were none. */
const GATEWAY_OBJECTIVE_HEADER = "x-gateway-inference-objective"

function namedClass(classes: SloClasses, source: SloSource): SloClass | null {
  const found =
    text(source.slo?.class, "slo.class") ??
    text(source.args?.slo_class, argParam("slo_class")) ??
    header(source, OBJECTIVE_HEADER)
  if (found === undefined)
    return classes.byName.get(header(source, GATEWAY_OBJECTIVE_HEADER)?.value ?? "") ?? null
  const { value: name, param } = found
  const named = classes.byName.get(name)
  if (named !== undefined) return named
  throw userError(
    "slo_class_not_found",
    { name, available: [...classes.byName.keys()].join(", ") },
    { param },
  )
}

/** The tier that the request itself names, if it can have it. */
function askedTier({ args }: SloSource, from: SloClass, hasOwn: boolean): Tier | undefined {
  const asked = args?.slo_tier
  const param = argParam("slo_tier")
  const refuse = (reason: string) => userError("invalid_slo", { name: param, reason }, { param })
  if (asked === "best_effort" && hasOwn) throw refuse("best effort has no objectives, and some are given")
  if (asked === "slo" && !hasOwn && from.tier === "bestEffort")
    throw refuse(`the class ${from.name} has no objectives, and none are given`)
  if (asked === undefined) return undefined
  return asked === "best_effort" ? "bestEffort" : "slo"
}

/** The objectives that the request itself gives, in µs. */
function ownObjectives(source: SloSource): Partial<Slo> {
  const own: Partial<Slo> = firstToken(source)
  const tpot = objective(source, "tpot_ms")
  if (tpot !== undefined) own.tpotUs = within(tpot.value * 1000, tpot.param, SLO_BOUNDS.tpotUs)
  const thinking = objective(source, "thinking_tpot_ms")
  if (thinking !== undefined)
    own.thinkingTpotUs = within(thinking.value * 1000, thinking.param, SLO_BOUNDS.tpotUs)
  const gap = objective(source, "max_gap_ms")
  if (gap !== undefined) own.maxGapUs = within(gap.value * 1000, gap.param, SLO_BOUNDS.maxGapUs)
  return own
}

/** Given as a time or as a multiple; the first place that gives either has the word. */
function firstToken(source: SloSource): Partial<Slo> {
  const { slo, args } = source
  const places = [
    { time: given(slo?.ttft_ms, "slo.ttft_ms"), times: given(slo?.ttft_slowdown, "slo.ttft_slowdown") },
    {
      time: given(args?.slo_ttft_ms, argParam("slo_ttft_ms")),
      times: given(args?.slo_ttft_slowdown, argParam("slo_ttft_slowdown")),
    },
    { time: headerNumber(source, "slo-ttft-ms"), times: undefined },
  ]
  const place = places.find(({ time, times }) => time !== undefined || times !== undefined)
  if (place === undefined) return {}
  const { time, times } = place
  if (time !== undefined && times !== undefined) {
    const reason = `give either ${time.param} or ${times.param}, not both`
    throw userError("invalid_slo", { name: times.param, reason }, { param: times.param })
  }
  if (times !== undefined)
    return {
      ttftSlowdown: within(times.value, times.param, SLO_BOUNDS.slowdown),
      ttftUs: Number.POSITIVE_INFINITY,
    }
  return { ttftUs: within(time!.value * 1000, time!.param, SLO_BOUNDS.ttftUs), ttftSlowdown: 0 }
}

/** From the first place that gives it. */
function objective(
  source: SloSource,
  field: "tpot_ms" | "thinking_tpot_ms" | "max_gap_ms",
): Given<number> | undefined {
  return (
    given(source.slo?.[field], `slo.${field}`) ??
    given(source.args?.[`slo_${field}`], argParam(`slo_${field}`)) ??
    headerNumber(source, `slo-${field.replaceAll("_", "-")}`)
  )
}

/** What a request says, and where. */
interface Given<T> {
  value: T
  param: string
}

const argParam = (name: keyof SloArgs) => `${SLO_ARGS_FIELD}.${name}`

function given(value: number | null | undefined, param: string): Given<number> | undefined {
  return value === null || value === undefined ? undefined : { value, param }
}

function text(value: string | null | undefined, param: string): Given<string> | undefined {
  return value === null || value === undefined ? undefined : { value, param }
}

function within(value: number, param: string, bounds: { min: number; max: number; text: string }): number {
  if (value >= bounds.min && value <= bounds.max) return Math.round(value * 1000) / 1000
  throw userError("invalid_slo", { name: param, reason: `the value must be ${bounds.text}` }, { param })
}

function header(source: SloSource, name: string): Given<string> | undefined {
  const value = source.headers[name]
  return value === undefined
    ? undefined
    : { value: Array.isArray(value) ? value.join(", ") : value, param: name }
}

/** Of what JavaScript takes for a number, what others do as well: the middleware inside vLLM reads the same headers. */
const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i

function headerNumber(source: SloSource, name: string): Given<number> | undefined {
  const found = header(source, `x-llm-d-${name}`) ?? header(source, `x-${name}`)
  if (found === undefined) return undefined
  const value = DECIMAL.test(found.value.trim()) ? Number(found.value) : Number.NaN
  if (Number.isFinite(value)) return { value, param: found.param }
  throw userError(
    "invalid_slo",
    { name: found.param, reason: `"${found.value.slice(0, 40)}" is not a number of milliseconds` },
    { param: found.param },
  )
}
