/** What a request of an engine says of its SLO: its arguments `slo_…` (vLLM: `vllm_xargs`), read as the server reads them. A
 * request that reached the engine is served, whatever they say: what cannot be meant is left out, and counted. */
import type { SloClasses } from "../config/slo-classes.ts"
import { DEFAULT_TENANT, TENANT_NAME } from "../config/tenants.ts"
import { UserError } from "../errors.ts"
import { readSloArgs, SLO_ARG_NAMES, SLO_ARGS_FIELD, type SloArgs } from "../serve/slo-args.ts"
import { type ResolvedSlo, resolveSlo } from "../serve/slo-resolve.ts"

/** Of one request. */
export interface SloArguments {
  resolved: ResolvedSlo
  tenant: string
  /** Client's name of its tool session, or null. */
  session: string | null
  /** When it reached the first gateway, ms since 1970; null: not told. */
  arrivedUnixMs: number | null
  mistakes: SloMistake[]
}

export interface SloMistake {
  argument: string
  kind: "unknown" | "invalid"
  /** For the log. */
  why: string
}

/** Never throws: what is wrong is in `mistakes`. */
export function readSloArguments(
  classes: SloClasses,
  given: Readonly<Record<string, unknown>>,
): SloArguments {
  const rest = { ...given }
  const mistakes: SloMistake[] = []
  for (;;) {
    try {
      const args = readSloArgs(rest)
      checkTenant(args)
      const resolved = resolveSlo(classes, { args, headers: {}, modelClass: null })
      const { slo_tenant: tenant = DEFAULT_TENANT, slo_session: session = null } = args
      return { resolved, tenant, session, arrivedUnixMs: args.slo_arrived_unix_ms ?? null, mistakes }
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      mistakes.push(leftOut(rest, error))
    }
  }
}

/** Takes the argument that the error names out of them; long names are cut there. */
function leftOut(args: Record<string, unknown>, { param, message }: UserError): SloMistake {
  const named = param?.slice(SLO_ARGS_FIELD.length + 1) ?? ""
  const argument = Object.keys(args).find((key) => key === named || key.startsWith(named)) ?? named
  // Without one that is named none of them can be meant.
  for (const key of Object.hasOwn(args, argument) ? [argument] : Object.keys(args)) delete args[key]
  return { argument: named, kind: SLO_ARG_NAMES.includes(named) ? "invalid" : "unknown", why: message }
}

function checkTenant({ slo_tenant }: SloArgs): void {
  if (slo_tenant === undefined || TENANT_NAME.test(slo_tenant)) return
  throw new UserError("a tenant's name is 1 to 128 visible ASCII characters", {
    param: `${SLO_ARGS_FIELD}.slo_tenant`,
  })
}
