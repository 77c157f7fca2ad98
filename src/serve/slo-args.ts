/** SLOs among the extra arguments of a vLLM request (its body's `vllm_xargs`): what a gateway writes there, and what a
 * planner, or a server of ours whose client was made for vLLM, reads. vLLM hands them on unread; values are strings, numbers
 * or lists of these. */
import { z } from "zod"
import { DEFAULT_TENANT } from "../config/tenants.ts"
import { UserError } from "../errors.ts"
import type { ResolvedSlo } from "../replica/generation.ts"

/** Field of the body, and of errors. */
export const SLO_ARGS_FIELD = "vllm_xargs"
const OURS = /^slo_/

const ms = z.number({ error: "must be a number of milliseconds" })
const name = z
  .string({ error: "must be a text" })
  .min(1, "must not be empty")
  .max(256, "has 256 characters at most")

const argsSchema = z.object({
  slo_class: name.optional(),
  slo_ttft_ms: ms.optional(),
  /** TTFT as a multiple of the unloaded prefill time. */
  slo_ttft_slowdown: z.number({ error: "must be a number" }).optional(),
  slo_tpot_ms: ms.optional(),
  slo_thinking_tpot_ms: ms.optional(),
  slo_max_gap_ms: ms.optional(),
  slo_tier: z.enum(["slo", "best_effort"], { error: 'must be "slo" or "best_effort"' }).optional(),
  slo_session: name.optional(),
  /** The next two are a gateway's to say: it knows its tenants, and when a request came. */
  slo_tenant: name.optional(),
  /** When it reached the first gateway, ms since 1970. */
  slo_arrived_unix_ms: z.number({ error: "must be a number of milliseconds since 1970" }).optional(),
})

export type SloArgs = z.output<typeof argsSchema>

/** All that there are. */
export const SLO_ARG_NAMES: readonly string[] = Object.keys(argsSchema.shape)
const OF_GATEWAYS = ["slo_tenant", "slo_arrived_unix_ms"]

/** Ours among a request's arguments. Throws UserError that names the argument which is unknown or of a wrong kind; bounds
 * of numbers are checked where the SLO is resolved (slo-resolve.ts). */
export function readSloArgs(args: Readonly<Record<string, unknown>>): SloArgs {
  const ours = Object.entries(args).filter(([key]) => OURS.test(key))
  const unknown = ours.find(([key]) => !SLO_ARG_NAMES.includes(key))
  if (unknown !== undefined)
    throw wrong(unknown[0].slice(0, 100), `is not a known argument (known: ${SLO_ARG_NAMES.join(", ")})`)
  const parsed = argsSchema.safeParse(Object.fromEntries(ours))
  if (parsed.success) return parsed.data
  const { path, message } = parsed.error.issues[0]!
  throw wrong(String(path[0]), message)
}

/** As readSloArgs, from a client, which may not say what is a gateway's to say. */
export function readClientSloArgs(args: Readonly<Record<string, unknown>> | null | undefined): SloArgs {
  const read = readSloArgs(args ?? {})
  const forbidden = OF_GATEWAYS.find((key) => key in read)
  if (forbidden !== undefined)
    throw wrong(forbidden, "is set by the server, from the request's key and its arrival")
  return read
}

/** A request's SLO as arguments. Objectives that it does not have are left out. */
export function writeSloArgs({ class: { name: slo_class }, slo, tier, thinking }: ResolvedSlo): SloArgs {
  if (tier === "bestEffort") return { slo_class, slo_tier: "best_effort" }
  return {
    slo_class,
    slo_tier: "slo",
    ...(slo.ttftSlowdown > 0 && { slo_ttft_slowdown: slo.ttftSlowdown }),
    ...(Number.isFinite(slo.ttftUs) && { slo_ttft_ms: slo.ttftUs / 1000 }),
    ...(Number.isFinite(slo.tpotUs) && { slo_tpot_ms: slo.tpotUs / 1000 }),
    ...(thinking &&
      Number.isFinite(slo.thinkingTpotUs) && { slo_thinking_tpot_ms: slo.thinkingTpotUs / 1000 }),
    ...(Number.isFinite(slo.maxGapUs) && { slo_max_gap_ms: slo.maxGapUs / 1000 }),
  }
}

/** What a gateway says besides: of which tenant the request is, if not the default's, which session, and when it came. */
export function writeOrigin(origin: {
  tenant: string
  session: string | null
  arrivedUnixMs: number
}): SloArgs {
  const { tenant, session, arrivedUnixMs } = origin
  return {
    ...(tenant !== DEFAULT_TENANT && { slo_tenant: tenant }),
    ...(session !== null && { slo_session: session }),
    slo_arrived_unix_ms: Math.round(arrivedUnixMs),
  }
}

/** A request's arguments without ours. */
export function othersArgs(args: unknown): Record<string, unknown> {
  if (typeof args !== "object" || args === null) return {}
  return Object.fromEntries(Object.entries(args).filter(([key]) => !OURS.test(key)))
}

function wrong(key: string, why: string): UserError {
  const param = `${SLO_ARGS_FIELD}.${key}`
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
