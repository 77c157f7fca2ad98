/** Objectives that a request asks for itself, beyond those of its class: whether it may, and how tight. */
import type { TightestObjectives } from "../config/api-keys.ts"
import type { Slo } from "../core/protocol.ts"
import { userError } from "../errors.ts"
import type { ResolvedSlo } from "../replica/generation.ts"

/** Objectives, with what bounds them and how people call them. */
const ASKED: readonly {
  field: keyof Slo
  bound: keyof TightestObjectives
  name: string
  unitUs: number
  unit: string
}[] = [
  { field: "ttftUs", bound: "ttftUs", name: "a TTFT", unitUs: 1000, unit: " ms" },
  { field: "ttftSlowdown", bound: "ttftSlowdown", name: "a TTFT slowdown", unitUs: 1, unit: "" },
  { field: "tpotUs", bound: "tpotUs", name: "a TPOT", unitUs: 1000, unit: " ms" },
  { field: "thinkingTpotUs", bound: "tpotUs", name: "a thinking TPOT", unitUs: 1000, unit: " ms" },
  { field: "maxGapUs", bound: "maxGapUs", name: "a longest gap", unitUs: 1000, unit: " ms" },
]

/** `tightest` null: it may ask for none. Throws UserError. */
export function checkAsked(
  { slo, tier, class: its }: ResolvedSlo,
  tightest: TightestObjectives | null,
): void {
  // Best effort has none.
  if (tier === "bestEffort") return
  for (const { field, bound, name, unitUs, unit } of ASKED) {
    const asked = slo[field]
    if (asked === its.slo[field] || !isObjective(field, asked)) continue
    if (tightest === null) throw userError("objectives_not_allowed")
    const least = leastOf(bound, tightest)
    if (least === null)
      throw userError("objective_too_tight", { name, asked: String(asked), least: "a time (ttft_ms)" })
    if (asked < least)
      throw userError("objective_too_tight", {
        ...{ name, asked: `${asked / unitUs}${unit}`, least: `${least / unitUs}${unit}` },
      })
  }
}

const isObjective = (field: keyof Slo, value: number): boolean =>
  Number.isFinite(value) && !(field === "ttftSlowdown" && value === 0)

/** What is not bounded itself must not go around what is. Null: not to be had at all. */
function leastOf(bound: keyof TightestObjectives, tightest: TightestObjectives): number | null {
  const own = tightest[bound]
  if (own > 0) return own
  if (bound === "maxGapUs") return tightest.tpotUs
  // A multiple of a time that is not known yet may be any time.
  if (bound === "ttftSlowdown") return tightest.ttftUs > 0 ? null : 0
  return 0
}
